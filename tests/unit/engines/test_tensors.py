from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artefacts.errors import InputError, RequestError
from engines import Profile, TensorSpec
from engines.requests import RequestCheck
from engines.tensors import numpy_dtype

SIZES = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)).map(
    lambda t: (t[0], t[0] + t[1], t[0] + t[1] + t[2])
)


def profile(*dims: tuple[int, int, int]) -> Profile:
    low, opt, high = zip(*dims, strict=True)
    return Profile(min={"x": low}, opt={"x": opt}, max={"x": high})


@given(st.lists(SIZES, min_size=1, max_size=4))
def test_profile_round_trips_and_contains_its_own_shapes(dims: list[tuple[int, int, int]]) -> None:
    made = profile(*dims)
    assert Profile.from_json(made.to_json()) == made
    for shapes in (made.min, made.opt, made.max):
        assert made.contains(shapes)


@given(st.lists(SIZES, min_size=1, max_size=4), st.data())
def test_profile_refuses_one_beyond_either_end(
    dims: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    made = profile(*dims)
    axis = data.draw(st.integers(0, len(dims) - 1))
    above, below = list(made.max["x"]), list(made.min["x"])
    above[axis] += 1
    below[axis] -= 1
    assert not made.contains({"x": above})
    assert not made.contains({"x": below})
    assert not made.contains({"x": [*made.opt["x"], 1]})


def test_profile_says_nothing_of_inputs_that_it_does_not_name() -> None:
    assert profile((1, 2, 3)).contains({"x": (2,), "mask": (77,)})


@pytest.mark.parametrize(
    ("low", "opt", "high"), [((-1,), (1,), (2,)), ((3,), (2,), (4,)), ((1,), (1, 2), (3,))]
)
def test_profile_out_of_order_is_refused(
    low: tuple[int, ...], opt: tuple[int, ...], high: tuple[int, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        Profile(min={"x": low}, opt={"x": opt}, max={"x": high})
    assert f"min {low}, opt {opt}, max {high}" in str(caught.value)


def test_profile_with_an_input_missing_names_both_lists() -> None:
    with pytest.raises(InputError, match=r"\['a'\] in min, \['a', 'b'\] in opt"):
        Profile(min={"a": (1,)}, opt={"a": (1,), "b": (1,)}, max={"a": (1,)})


def test_profile_is_frozen() -> None:
    with pytest.raises(TypeError):
        profile((1, 2, 3)).min["x"] = (5,)  # type: ignore[index]


def test_spec_round_trips() -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=(None, 3, 4))
    assert TensorSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(("name", "size"), [("float32", 4), ("int8", 1), ("bfloat16", 2)])
def test_dtypes_by_name(name: str, size: int) -> None:
    assert numpy_dtype(name).itemsize == size
    assert numpy_dtype(name).name == name


def test_unknown_dtype_is_named() -> None:
    with pytest.raises(InputError, match="'float77' is unknown"):
        numpy_dtype("float77")
    assert np.dtype("float32") == numpy_dtype("float32")


@pytest.mark.parametrize(
    ("shape", "taken"),
    [((2, 4, 0, 8), True), ((2, 4, 3, 8), True), ((0, 4, 3, 8), False), ((2, 0, 3, 8), False)],
    ids=["empty past", "past", "empty batch", "no heads"],
)
def test_a_past_may_be_empty_and_a_batch_not(shape: tuple[int, ...], taken: bool) -> None:
    spec = TensorSpec(name="past", dtype="float32", shape=(None, 4, None, 8))
    check = RequestCheck([spec], [], lambda value: None)
    past = np.zeros(shape, np.float32)
    if taken:
        assert check({"past": past})["past"] is past
    else:
        with pytest.raises(
            RequestError, match=r"expected \(any, 4, any, 8\) and a first dimension"
        ):
            check({"past": past})
