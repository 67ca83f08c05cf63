"""Around every test: a fresh driver before, and nothing alive, pushed or misused after."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.host_driver.control import Counts, HostDriver


@pytest.fixture(autouse=True, scope="session")
def _collect_only_what_tests_make() -> None:
    gc.freeze()  # the libraries' own objects need no look at each collection


@pytest.fixture
def driver() -> HostDriver:
    return HostDriver()


@pytest.fixture(autouse=True)
def nothing_is_left(driver: HostDriver) -> Iterator[None]:
    driver.reset()
    yield
    gc.collect()
    found = driver.counts()
    assert driver.complaint() == ""
    # The context of each device is retained once and kept; launches only count.
    kept = {name: getattr(found, name) for name in ("references_0", "references_1", "launches")}
    assert kept["references_0"] <= 1
    assert kept["references_1"] <= 1
    assert found == Counts(**(dict.fromkeys(Counts._fields, 0) | kept))
