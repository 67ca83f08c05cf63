"""Whatever a file holds: a value or one of our sentences, soon. ``make soak`` tries more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artefacts.errors import BuilderError
from tests.soak.mutations import KINDS, Mutation, mutated
from tests.soak.readers import READERS

CHANGES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.floats(0, 1), st.integers(0, 1 << 16)),
    min_size=1,
    max_size=4,
)


def attempt(name: str, data: bytes, folder: Path) -> str:
    """What the reader says; "" where it accepts the file."""
    reader = READERS[name]
    path = folder / reader.name
    path.write_bytes(data)
    try:
        reader.read(path)
    except BuilderError as err:
        return str(err)
    return ""


@pytest.mark.parametrize("name", READERS)
def test_a_valid_file_is_read(name: str, tmp_path: Path) -> None:
    assert attempt(name, READERS[name].valid, tmp_path) == ""


HOSTILE = [(name, index) for name, each in READERS.items() for index in range(len(each.hostile))]


@pytest.mark.parametrize(("name", "index"), HOSTILE)
def test_what_once_got_through_is_one_sentence(name: str, index: int, tmp_path: Path) -> None:
    said = attempt(name, READERS[name].hostile[index], tmp_path)
    assert said, "accepted"
    assert len(said) < 1500 + 3 * len(str(tmp_path))


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
def test_changed_files(name: str, tmp_path: Path, changes: list[Mutation]) -> None:
    said = attempt(name, mutated(READERS[name].valid, changes), tmp_path)
    assert len(said) < 1500 + 3 * len(str(tmp_path))
