"""A report that is made, not measured."""

from __future__ import annotations

import pytest

from benchmarks.report.document import Report
from tests.unit.benchmarks.made import made_report


@pytest.fixture(scope="module")
def report() -> Report:
    return made_report()
