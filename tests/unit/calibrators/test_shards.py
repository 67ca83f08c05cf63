"""Shards cover the samples, each once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artefacts.errors import InputError
from calibrators.shards import parse_shard


@given(count=st.integers(0, 30), of=st.integers(1, 40))
def test_shards_are_a_partition(count: int, of: int) -> None:
    samples = list(range(count))
    parts = [samples[parse_shard(f"{number}/{of}")] for number in range(1, of + 1)]
    assert sorted(sample for part in parts for sample in part) == samples
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/8", "9/8", "1/0", "2", "a/b", "-1/2", "1/2/3", "", "1 /2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"shard '{text}', expected i/n"):
        parse_shard(text)
