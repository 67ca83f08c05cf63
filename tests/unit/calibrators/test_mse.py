"""The closed form of the squared error, against errors of real values and of plain integration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from calibrators.ranges.mse import _clipping_error, mse, quantization_error
from calibrators.statistics.tensor_statistics import TensorStatistics

Draw = Callable[[np.random.Generator], NDArray[np.float64]]

DRAWS: dict[str, Draw] = {
    "normal": lambda rng: rng.standard_normal(100_000),
    "relu": lambda rng: np.maximum(rng.standard_normal(100_000), 0),
    "exponential": lambda rng: rng.exponential(size=100_000),
    "ceiling": lambda rng: np.clip(3 * rng.standard_normal(100_000), 0, 6),
    "outlier": lambda rng: np.append(rng.standard_normal(100_000), 40),
}


def sampled_error(values: NDArray[np.float64], threshold: float) -> float:
    scale = threshold / 127
    quantized = np.clip(np.rint(values / scale), -127, 127) * scale
    return float(np.mean((values - quantized) ** 2))


@pytest.mark.parametrize("name", DRAWS)
def test_closed_form_is_the_sampled_error(name: str, rng: np.random.Generator) -> None:
    values = DRAWS[name](rng).astype(np.float32).astype(np.float64)
    statistics = TensorStatistics.of(values)
    thresholds = statistics.amax * np.array([1.0, 0.8, 0.5, 0.25, 0.1])
    found = quantization_error(statistics, thresholds)
    expected = [sampled_error(values, threshold) for threshold in thresholds]
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_closed_form_is_the_integral(rng: np.random.Generator) -> None:
    """Each bin but the last integrated by 400 midpoints, the last as its largest value."""
    statistics = TensorStatistics.of(rng.standard_normal(300))
    width, top = statistics.bin_width, int(np.flatnonzero(statistics.counts)[-1])
    for threshold in statistics.amax * np.array([1.0, 0.3]):
        total = 0.0
        for place in np.flatnonzero(statistics.counts):
            inside = (place + (np.arange(400) + 0.5) / 400) * width
            values = np.array([statistics.amax]) if place == top else inside
            total += float(statistics.counts[place]) * sampled_error(values, threshold)
        found = quantization_error(statistics, np.array([threshold]))[0]
        assert found == pytest.approx(total / statistics.count, rel=1e-3)


@pytest.mark.parametrize("name", DRAWS)
def test_no_threshold_is_better(name: str, rng: np.random.Generator) -> None:
    values = DRAWS[name](rng).astype(np.float32).astype(np.float64)
    statistics = TensorStatistics.of(values)
    found = mse(statistics)
    others = statistics.amax * np.linspace(0.02, 1.0, 99)
    best = min(sampled_error(values, threshold) for threshold in others)
    assert sampled_error(values, found) <= best * 1.01
    assert found <= statistics.amax


@pytest.mark.parametrize("name", DRAWS)
def test_thresholds_that_are_not_tried_are_worse(name: str, rng: np.random.Generator) -> None:
    statistics = TensorStatistics.of(DRAWS[name](rng))
    every = statistics.amax * np.geomspace(1.0, 2.0**-9, 200)
    errors = quantization_error(statistics, every)
    assert (_clipping_error(statistics, every) <= errors).all()
    best = int(errors.argmin())
    around = every[min(best + 1, 199)], every[max(best - 1, 0)]
    assert around[0] <= mse(statistics) <= around[1]


def test_ceiling_is_not_clipped_for_its_bin(rng: np.random.Generator) -> None:
    assert mse(TensorStatistics.of(DRAWS["ceiling"](rng))) == 6.0


def test_values_on_the_codes_have_no_error_at_their_range() -> None:
    values = np.arange(-127, 128).astype(np.float32)
    statistics = TensorStatistics.of(np.full(5, 127, np.float32))
    assert quantization_error(statistics, np.array([127.0]))[0] == 0.0
    # Spread over its bin, a value on a code has the error of its neighbourhood: at most the bin's.
    all_codes = quantization_error(TensorStatistics.of(values), np.array([127.0]))[0]
    assert all_codes < (128 / 4096) ** 2


def test_dead_tensors_have_none() -> None:
    dead = TensorStatistics.of(np.zeros(4, np.float32))
    assert quantization_error(dead, np.array([1.0, 2.0])).tolist() == [0.0, 0.0]
