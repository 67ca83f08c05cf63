"""Ranges as a file."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from artefacts.errors import ArtefactError, InputError
from calibrators.ranges.ranges import LARGEST_AMAX, SMALLEST_AMAX, Range, Ranges

AMAX = st.floats(SMALLEST_AMAX, LARGEST_AMAX)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1)


def make(tensors: dict[str, float], **changes: Any) -> Ranges:
    fields: dict[str, Any] = {
        "graph_hash": "a" * 64,
        "statistics_digest": "b" * 64,
        "method": "entropy",
        "tensors": {name: Range(amax=amax, method="entropy") for name, amax in tensors.items()},
        "samples": 64,
        "preprocess": {"scale": 1 / 255, "mean": [0.5, 0.25, 0.125]},
    }
    return Ranges(**{**fields, **changes})


@given(tensors=st.dictionaries(NAMES, AMAX, max_size=6))
def test_file_is_the_identity(
    tensors: dict[str, float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "x.ranges.json"
    ranges = make(tensors)
    ranges.save(path)
    loaded = Ranges.load(path)
    assert loaded == ranges
    assert loaded.digest == ranges.digest


def test_order_does_not_show() -> None:
    assert make({"a": 1.0, "b": 2.0}).digest == make({"b": 2.0, "a": 1.0}).digest
    assert make({"a": 1.0}).digest != make({"a": 1.0}, samples=65).digest


def test_scale_is_the_float32_that_engines_hold() -> None:
    assert Range(amax=127.0, method="minmax").scale == 1.0
    assert Range(amax=1.0, method="minmax").scale == float(np.float32(1 / 127))
    assert Range(amax=SMALLEST_AMAX, method="m").scale == float(np.finfo(np.float32).tiny)


@pytest.mark.parametrize("amax", [0.0, -1.0, float("nan"), float("inf"), 1e-40, 1e39])
def test_useless_numbers_are_refused(amax: float) -> None:
    with pytest.raises(ArtefactError, match=re.escape(f"amax of a range is {amax}")):
        Range(amax=amax, method="entropy")


def test_shared_range_is_the_largest_and_says_why() -> None:
    ranges = make({"a": 1.0, "b": 4.0, "c": 2.0, "d": 9.0})
    shared = ranges.shared(["a", "b", "c"], why="inputs of Concat cat")
    assert [shared.amax(name) for name in "abcd"] == [4.0, 4.0, 4.0, 9.0]
    assert [shared[name].why for name in "abcd"] == [
        "inputs of Concat cat",
        "",
        "inputs of Concat cat",
        "",
    ]
    assert ranges.amax("a") == 1.0
    assert ranges.shared([], why="nothing") == ranges


def test_missing_tensor_is_named() -> None:
    with pytest.raises(ArtefactError, match="tensor 'x' has no range among 1"):
        make({"a": 1.0}).amax("x")


CONTENT = {
    "format": 1,
    "graph_hash": "a",
    "statistics_digest": "b",
    "method": "mse",
    "samples": 3,
    "preprocess": None,
    "tensors": {"x": {"amax": 1.5, "method": "mse", "why": ""}},
}


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in CONTENT.items() if name != key}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "format is not 1"),
        (without("method"), "no 'method'"),
        ({**CONTENT, "format": 2}, "format is not 1"),
        ({**CONTENT, "samples": -1}, "samples is -1"),
        ({**CONTENT, "preprocess": "x"}, "preprocess is 'x'"),
        ({**CONTENT, "graph_hash": 5}, "graph_hash is 5"),
        ({**CONTENT, "tensors": []}, "cannot be read"),
        ({**CONTENT, "tensors": {"x": 1}}, "cannot be read"),
        ({**CONTENT, "tensors": {"x": {"amax": "1", "method": "m"}}}, "amax of tensor x is '1'"),
        ({**CONTENT, "tensors": {"x": {"amax": True, "method": "m"}}}, "amax of tensor x is True"),
        ({**CONTENT, "tensors": {"x": {"amax": 1e999, "method": "m"}}}, "Infinity is no number"),
        ({**CONTENT, "tensors": {"x": {"amax": 0, "method": "m"}}}, "amax of a range is 0.0"),
        ({**CONTENT, "tensors": {"x": {"amax": 1, "method": 3}}}, "method of tensor x is 3"),
        ({**CONTENT, "tensors": {"x": {"amax": 10**400, "method": "m"}}}, "too large"),
        ({**CONTENT, "tensors": {"\ud800": {"amax": 1, "method": "m"}}}, "surrogates"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "x.ranges.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ArtefactError, match=message):
        Ranges.load(path)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(change=st.dictionaries(st.sampled_from(sorted(CONTENT)), JSON))
@example(change={"preprocess": {"": math.inf}})
def test_any_json_gives_ranges_or_a_sentence(
    change: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.ranges.json"
    path.write_text(json.dumps({**CONTENT, **change}))
    try:
        ranges = Ranges.load(path)
    except ArtefactError as err:
        assert "expected" in str(err)  # noqa: PT017 - either outcome is right
    else:
        ranges.save(path)
        assert Ranges.load(path).digest == ranges.digest


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json does not exist"):
        Ranges.load(tmp_path / "none.json")
