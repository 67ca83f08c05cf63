"""The entropy method against a slow plain version of the same definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibrators.ranges.entropy import CODES, KEPT_SHARE, divergence, entropy
from calibrators.statistics.tensor_statistics import BINS, TensorStatistics

DRAWS = {
    "normal": lambda rng: rng.standard_normal(40_000),
    "relu": lambda rng: np.maximum(rng.standard_normal(40_000), 0),
    "heavy_tail": lambda rng: rng.standard_t(3, 40_000),
    "exponential": lambda rng: rng.exponential(size=40_000),
    "ceiling": lambda rng: np.clip(3 * rng.standard_normal(40_000), 0, 6),
    "outlier": lambda rng: np.append(rng.standard_normal(40_000), 40),
    "few_values": lambda rng: rng.integers(0, 17, 40_000) / 16,
}


def plain_divergence(counts: list[int], last: int) -> float:
    """KL of one candidate, one bin at a time."""
    clipped = [float(count) for count in counts[:last]] + [float(sum(counts[last:]))]
    total = sum(clipped)
    codes = [min((2 * j + 1) * CODES // (2 * last + 1), CODES - 1) for j in range(last)]
    codes.append(CODES - 1)
    mass, occupied = [0.0] * CODES, [0] * CODES
    for count, code in zip(clipped, codes, strict=True):
        mass[code] += count
        occupied[code] += count > 0
    result = 0.0
    for count, code in zip(clipped, codes, strict=True):
        if count:
            spread = mass[code] / occupied[code]
            result += count / total * math.log(count / spread)
    return result


@pytest.mark.parametrize("name", DRAWS)
def test_divergence_is_the_plain_one(name: str, rng: np.random.Generator) -> None:
    statistics = TensorStatistics.of(DRAWS[name](rng))
    candidates, values = divergence(statistics.counts)
    counts = statistics.counts.tolist()
    for place in {0, candidates.size - 1, *rng.integers(0, candidates.size, 8).tolist()}:
        assert values[place] == pytest.approx(
            plain_divergence(counts, int(candidates[place])), abs=1e-11
        )


@pytest.mark.parametrize("name", ["normal", "ceiling", "few_values"])
def test_threshold_is_the_middle_of_the_best_bin(name: str, rng: np.random.Generator) -> None:
    statistics = TensorStatistics.of(DRAWS[name](rng)[:4000])
    counts = statistics.counts.tolist()
    candidates, _ = divergence(statistics.counts)
    step = max(1, candidates.size // 60)  # the plain version takes a millisecond each
    tried = sorted({*candidates[::step].tolist(), int(candidates[-1])})
    plain = {last: plain_divergence(counts, last) for last in tried}
    found = entropy(statistics)
    best = round(found / statistics.bin_width - 0.5)
    if found < statistics.amax:
        assert found == (best + 0.5) * statistics.bin_width
    assert plain_divergence(counts, best) <= min(plain.values()) + 1e-9


def test_candidates_keep_nearly_all_values(rng: np.random.Generator) -> None:
    """The safeguard: without it a ReLU with many small values is clipped to a fraction."""
    values = np.concatenate([rng.exponential(0.01, 100_000), rng.uniform(0, 1, 3000)])
    statistics = TensorStatistics.of(values)
    candidates, _ = divergence(statistics.counts)
    below = np.concatenate([[0], np.cumsum(statistics.counts)])
    kept = below[candidates + 1] / below[-1]
    assert kept.min() >= KEPT_SHARE
    assert entropy(statistics) >= np.quantile(values, KEPT_SHARE) - statistics.bin_width


def test_ties_go_to_the_larger_range() -> None:
    """Four values in bins of their own: each range that keeps them all is without loss."""
    statistics = TensorStatistics.of(np.array([0.25, 0.5, 0.75, 1.0]))
    _, values = divergence(statistics.counts)
    assert np.flatnonzero(np.isclose(values, values.min(), atol=1e-12)).size >= 1
    assert entropy(statistics) == 1.0


def test_ceiling_is_kept(rng: np.random.Generator) -> None:
    assert entropy(TensorStatistics.of(DRAWS["ceiling"](rng))) == 6.0


@given(power=st.integers(-30, 30), seed=st.integers(0, 2**32 - 1))
def test_powers_of_two_scale_exactly(power: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal(2000).astype(np.float32)
    scaled: NDArray[np.float32] = values * np.float32(2.0**power)
    assert entropy(TensorStatistics.of(scaled)) == 2.0**power * entropy(TensorStatistics.of(values))


def test_differs_from_minmax_where_peers_do_not(rng: np.random.Generator) -> None:
    """Peers with as many bins as codes have one candidate only: the largest value."""
    statistics = TensorStatistics.of(np.append(rng.standard_normal(200_000), 7.0))
    candidates, _ = divergence(statistics.counts)
    assert candidates.size > 100
    assert 3.0 < entropy(statistics) < statistics.amax == 7.0


def test_smallest_histogram() -> None:
    statistics = TensorStatistics.of(np.array([3.0], np.float32))
    candidates, values = divergence(statistics.counts)
    assert candidates.tolist() == [BINS * 3 // 4]
    assert values.tolist() == [0.0]
    assert entropy(statistics) == 3.0
