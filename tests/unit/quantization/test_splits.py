"""Splits by content: stable, disjoint, and a guard that names the sample."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artefacts.errors import DataError
from artefacts.files import digest_of
from quantization.search.splits import check_disjoint, split_digests


def digests(count: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]


@given(st.integers(2, 60), st.floats(0.05, 0.95), st.integers(0, 5), st.randoms())
def test_parts_are_disjoint_complete_and_blind_to_order(
    count: int, share: float, seed: int, random: object
) -> None:
    names = digests(count)
    selection, test = split_digests(names, selection_share=share, seed=seed)
    assert sorted((*selection, *test)) == list(range(count))
    assert selection
    assert test
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again, _ = split_digests(shuffled, selection_share=share, seed=seed)
    assert {shuffled[i] for i in again} == {names[i] for i in selection}


def test_copies_stay_together() -> None:
    names = [*digests(10), *digests(10)]
    selection, test = split_digests(names)
    assert not {names[i] for i in selection} & {names[i] for i in test}
    assert len(selection) == len(test) == 10


def test_seeds_differ() -> None:
    assert split_digests(digests(40), seed=1) != split_digests(digests(40), seed=2)


@pytest.mark.parametrize(
    ("names", "share", "message"),
    [
        (digests(1) * 5, 0.5, "1 distinct labelled samples"),
        (digests(5), 0.0, "selection share is 0.0"),
        (digests(5), 1.0, "selection share is 1.0"),
    ],
)
def test_what_cannot_be_split(names: list[str], share: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_digests(names, selection_share=share)


def test_a_shared_sample_is_refused() -> None:
    a, b, c = digests(3)
    check_disjoint({"calibration": [a, a], "selection": [b], "test": [c]})
    with pytest.raises(
        DataError, match=rf"1 samples are in the calibration data and in the test data .*{a[:12]}"
    ):
        check_disjoint({"calibration": [a, b], "selection": [c], "test": [a]})


def test_the_digest_of_a_set_ignores_order_and_copies() -> None:
    assert digest_of(digests(4)) == digest_of([*reversed(digests(4)), digests(1)[0]])
    assert digest_of(digests(4)) != digest_of(digests(5))
