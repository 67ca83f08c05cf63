"""Statistics of one tensor: exact, and blind to order, batches and splits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from calibrators.statistics import counting as native
from calibrators.statistics import tensor_statistics
from calibrators.statistics.tensor_statistics import BINS, TensorStatistics


@pytest.fixture(scope="module", params=["numpy", "compiled"], autouse=True)
def form(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every law holds for both forms of counting."""
    if request.param == "compiled" and native.library is None:
        pytest.skip("calibrators/_counting.c was not compiled at installation (no C compiler?)")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setattr(native, "library", None)
        yield


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ARRAYS = hnp.arrays(np.float32, st.integers(0, 60), elements=FLOATS)


def exact(values: NDArray[np.float32]) -> list[Fraction]:
    return [Fraction(float(value)) for value in values]


def plain_counts(values: NDArray[np.float32], exponent: int) -> list[int]:
    """The definition, in rational numbers."""
    counts = [0] * BINS
    for value in exact(values):
        if value:
            counts[math.floor(abs(value) * BINS / Fraction(2) ** exponent)] += 1
    return counts


@given(values=ARRAYS)
def test_every_number_is_the_definition(values: NDArray[np.float32]) -> None:
    found = TensorStatistics.of(values)
    assert found.count == values.size
    assert found.zeros == int((values == 0).sum())
    assert found.counts.tolist() == plain_counts(values, found.exponent)
    if values.size:
        assert (found.min, found.max) == (values.min(), values.max())
    if values.any():
        assert found.amax < 2.0**found.exponent <= 2 * found.amax


@given(values=ARRAYS, data=st.data())
def test_order_and_split_do_not_matter(values: NDArray[np.float32], data: st.DataObject) -> None:
    whole = TensorStatistics.of(values)
    shuffled = np.array(data.draw(st.permutations(values.tolist())), np.float32)
    cuts = sorted(data.draw(st.lists(st.integers(0, values.size), max_size=4)))
    added, merged = TensorStatistics(), TensorStatistics()
    for piece in np.split(shuffled, cuts):
        added.add(piece)
        merged.merge(TensorStatistics.of(piece))
    assert added == whole
    assert merged == whole


@given(first=ARRAYS, second=ARRAYS, third=ARRAYS)
def test_merge_is_associative_and_commutative(
    first: NDArray[np.float32], second: NDArray[np.float32], third: NDArray[np.float32]
) -> None:
    a, b, c = (TensorStatistics.of(values) for values in (first, second, third))

    def merged(left: TensorStatistics, right: TensorStatistics) -> TensorStatistics:
        result = left.copy()
        result.merge(right)
        return result

    assert merged(merged(a, b), c) == merged(a, merged(b, c))
    assert merged(a, b) == merged(b, a)
    assert merged(a, TensorStatistics()) == a


def test_long_arrays_with_every_exponent(rng: np.random.Generator) -> None:
    """More than one step, values of all magnitudes, an outlier."""
    spread = np.exp2(rng.uniform(-149, 127, 70_000)) * rng.choice([-1, 1], 70_000)
    ordinary = rng.standard_normal(100_000)
    outlier = np.append(rng.standard_normal(50_000) * 1e-6, 3e4)
    for values in (spread, ordinary, outlier, np.maximum(ordinary, 0)):
        array = values.astype(np.float32)
        found = TensorStatistics.of(array)
        units = [abs(int(math.ldexp(float(value), 149))) for value in array]
        places = [unit * BINS >> (149 + found.exponent) for unit in units if unit]
        assert found.counts.tolist() == np.bincount(places, minlength=BINS).tolist()
        assert found.zeros == int((array == 0).sum())


def test_the_sum_of_squares_is_within_half_a_bin_of_each_value(rng: np.random.Generator) -> None:
    for values in (rng.standard_normal(50_000), np.maximum(rng.standard_t(3, 50_000), 0)):
        found = TensorStatistics.of(values)
        half = found.bin_width / 2
        bound = (half * (2 * np.abs(values[values != 0]) + half)).sum()
        assert abs(found.sum_squares - (values**2).sum()) <= bound
        assert found.sum_squares == pytest.approx((values**2).sum(), rel=1e-3)
    constant = TensorStatistics.of(np.full(10, 5.0, np.float32))
    assert constant.sum_squares == pytest.approx(250, abs=10 * 10 * constant.bin_width)


def test_growing_from_a_small_first_batch_costs_no_resolution() -> None:
    """A first batch near zero fixes nothing; peers took the bin width or the range from it."""
    late = np.array([100.0, 50.0], np.float32)
    found = TensorStatistics.of(np.array([0.001], np.float32))
    found.add(late)
    assert found.counts.size == BINS
    assert found.bin_width <= found.amax / 2048
    assert found == TensorStatistics.of(np.append(late, np.float32(0.001)))


def test_signed_zeros_do_not_show() -> None:
    plus, minus = np.zeros(1, np.float32), -np.zeros(1, np.float32)
    one, other = (TensorStatistics.of(np.append(a, b)) for a, b in ((plus, minus), (minus, plus)))
    assert math.copysign(1, one.min) == math.copysign(1, other.min) == 1
    assert one == other
    assert one.is_dead


def test_nan_and_inf_are_counted_apart() -> None:
    found = TensorStatistics.of(np.array([np.nan, 1, np.inf, -np.inf, -2, 0], np.float32))
    assert (found.nan, found.inf, found.count, found.zeros) == (1, 2, 3, 1)
    assert (found.min, found.max) == (-2, 1)
    only = TensorStatistics.of(np.full(3, np.nan, np.float32))
    assert (only.nan, only.count, only.amax) == (3, 0, 0.0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_float_types_and_layouts(dtype: str, rng: np.random.Generator) -> None:
    values = rng.standard_normal((4, 6)).astype(np.float16)
    expected = TensorStatistics.of(values.astype(np.float32).ravel())
    array = np.asfortranarray(values.astype(dtype))
    assert TensorStatistics.of(array) == expected
    assert TensorStatistics.of(array[::-1, ::2]) == TensorStatistics.of(values[:, ::2])


def test_float64_beyond_float32_is_an_infinity() -> None:
    found = TensorStatistics.of(np.array([1e300, 1.0]))
    assert (found.inf, found.count) == (1, 1)


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="found an array of int64"):
        TensorStatistics.of(np.arange(3))


@given(
    pieces=st.lists(
        hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)), max_size=4
    )
)
def test_compiled_counting_is_numpys(pieces: list[NDArray[np.float32]]) -> None:
    """NaN and infinities among the values, ranges that grow from piece to piece."""
    compiled, numpy = TensorStatistics(), TensorStatistics()
    for piece in pieces:
        compiled.add(piece)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "library", None)
            numpy.add(piece)
    assert compiled == numpy


def test_steps_do_not_show(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    values = rng.standard_normal(1000).astype(np.float32)
    whole = TensorStatistics.of(values)
    monkeypatch.setattr(tensor_statistics, "_STEP", 64)
    assert TensorStatistics.of(values) == whole
