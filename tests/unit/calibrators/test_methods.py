"""Methods from statistics to ranges."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from artefacts.errors import DataError, InputError
from calibrators.ranges.methods import (
    METHODS,
    compute_range,
    compute_ranges,
    parse_method,
    percentile,
)
from calibrators.ranges.ranges import SMALLEST_AMAX
from calibrators.statistics.statistics import Statistics, TensorStatistics

EVERY = [*METHODS, "percentile:100", "percentile:99.9", "percentile:50"]
VALUES = hnp.arrays(
    np.float32,
    st.integers(2, 80),
    elements=st.floats(-1000, 1000, width=32, allow_subnormal=False),
)


def statistics_of(**tensors: NDArray[np.float32]) -> Statistics:
    cells = {name: TensorStatistics.of(values) for name, values in tensors.items()}
    return Statistics(graph_hash="f" * 64, preprocess=None, samples=("s",), tensors=cells)


@given(values=VALUES)
def test_every_range_is_usable_and_within_the_largest_value(values: NDArray[np.float32]) -> None:
    cell = TensorStatistics.of(values)
    for method in EVERY:
        found = compute_range(cell, method)
        assert found.scale > 0
        if not cell.is_dead:
            assert found.amax <= max(cell.amax, SMALLEST_AMAX)


@given(values=VALUES)
def test_percentiles_rise_to_the_largest_value(values: NDArray[np.float32]) -> None:
    cell = TensorStatistics.of(values)
    rising = [percentile(cell, percent) for percent in (1, 50, 90, 99, 99.9, 99.99, 100)]
    assert rising == sorted(rising)
    assert rising[-1] == cell.amax


@pytest.mark.parametrize("percent", [10.0, 50.0, 99.0, 99.9])
@pytest.mark.parametrize("relu", [False, True])
def test_percentile_is_the_ranked_value_within_a_bin(
    percent: float, relu: bool, rng: np.random.Generator
) -> None:
    values = np.maximum(rng.standard_normal(50_000), 0 if relu else -np.inf).astype(np.float32)
    cell = TensorStatistics.of(values)
    rank = math.ceil(Fraction(str(percent)) * values.size / 100)
    expected = np.sort(np.abs(values))[rank - 1]
    assert percentile(cell, percent) == pytest.approx(expected, abs=cell.bin_width)


@given(power=st.integers(-20, 20), seed=st.integers(0, 2**32 - 1))
def test_powers_of_two_scale_every_method_exactly(power: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal(500).astype(np.float32)
    cell = TensorStatistics.of(values)
    scaled = TensorStatistics.of(values * np.float32(2.0**power))
    for method in EVERY:
        expected = 2.0**power * compute_range(cell, method).amax
        assert compute_range(scaled, method).amax == pytest.approx(expected, rel=1e-12)


def test_dead_and_constant_tensors_say_so_and_get_a_safe_scale() -> None:
    ranges = compute_ranges(
        statistics_of(
            dead=np.zeros(6, np.float32),
            constant=np.full(6, -0.25, np.float32),
            tiny=np.array([1e-44, 2e-44], np.float32),
        )
    )
    dead, constant, tiny = (ranges[name] for name in ("dead", "constant", "tiny"))
    assert (dead.method, dead.why) == ("dead", "all 6 values are zero on these samples")
    assert dead.scale > 0
    assert (constant.amax, constant.method) == (0.25, "constant")
    assert "all 6 values are -0.25" in constant.why
    assert tiny.amax == SMALLEST_AMAX
    assert "no normal float32" in tiny.why


def test_ranges_carry_what_they_were_taken_from() -> None:
    statistics = statistics_of(a=np.arange(5, dtype=np.float32))
    ranges = compute_ranges(statistics, method="percentile:99.9")
    assert (ranges.graph_hash, ranges.samples) == ("f" * 64, 1)
    assert ranges.statistics_digest == statistics.digest
    assert ranges.method == ranges["a"].method == "percentile:99.9"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("max", "method 'max', expected one of minmax, entropy, percentile, mse"),
        ("entropy:3", "method 'entropy:3'"),
        ("percentile:0", "percentile '0', expected a number above 0"),
        ("percentile:101", "percentile '101'"),
        ("percentile:nan", "percentile 'nan'"),
        ("percentile:many", "percentile 'many'"),
        ("", "method ''"),
    ],
)
def test_unknown_methods_are_refused(method: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_method(method)


def test_statistics_without_samples_or_with_nan_are_refused() -> None:
    empty = Statistics(graph_hash="f", preprocess=None, samples=(), tensors={})
    with pytest.raises(DataError, match="seen 0 samples"):
        compute_ranges(empty)
    broken = statistics_of(conv_out=np.array([1.0, np.nan, np.inf], np.float32))
    with pytest.raises(DataError, match="tensor conv_out had 1 NaN and 1 Inf"):
        compute_ranges(broken)
