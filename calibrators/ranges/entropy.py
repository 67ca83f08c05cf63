"""The entropy method: the range whose 8-bit histogram tells most of the real one.

NVIDIA's documented algorithm (mlcommons/inference_results_v4.1,
closed/NVIDIA/documentation/calibration.md) on our histogram of the values other than zero. For
each bin B, with n_j values in bin j:

    P_j = n_j for j < B,  P_B = everything from bin B up      (clipped to B)
    c(j) = min(floor((j + 1/2) * 127 / (B + 1/2)), 126)       (the code that bin j falls on)
    Q_c = sum of P_j,  N_c = number of P_j > 0, over c(j) = c
    q_j = Q_c(j) / N_c(j) where P_j > 0                       (spread out again)
    KL(B) = sum of P_j ln(P_j / q_j), divided by the sum S of P

and the range is the middle of the bin with the smallest KL. Because q is constant within a code,
KL(B) = (sum_j P_j ln P_j - sum_c Q_c ln(Q_c / N_c)) / S, which prefix sums give for all B at once.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from calibrators.statistics.tensor_statistics import BINS, TensorStatistics

__all__ = ["CODES", "KEPT_SHARE", "divergence", "entropy"]

CODES = 127
# Ranges that clip more than this are not tried: on data with many small values the divergence
# alone would clip a ReLU's output to a fraction of its range.
KEPT_SHARE = 0.99
_BLOCK = 128  # candidates at a time: the work arrays stay in the cache


def entropy(statistics: TensorStatistics) -> float:
    """Threshold of smallest divergence, between bins; ties go to the larger one.

    Args:
        statistics: of a tensor with at least one value other than zero.
    """
    candidates, values = divergence(statistics.counts)
    smallest = values.min()
    # The divergences carry rounding errors of about 1e-13; equal ones must count as a tie.
    best = candidates[np.flatnonzero(values <= smallest + 1e-11 + 1e-9 * smallest)[-1]]
    return min((float(best) + 0.5) * statistics.bin_width, statistics.amax)


def divergence(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Candidate bins B and KL(B) in nats of each.

    Args:
        counts: (4096,) with its last value in the upper half, as ``TensorStatistics`` keeps it.
    """
    values_in = counts.astype(np.float64)
    below = _prefix(values_in)  # below[j] = values in bins before j
    occupied = np.concatenate([[0], np.cumsum(values_in > 0)])
    own = _prefix(_xlogx(values_in))
    total = below[-1]
    last = int(np.flatnonzero(values_in)[-1])
    first = max(CODES, int(np.searchsorted(below[1:], KEPT_SHARE * total)))
    candidates = np.arange(min(first, last), last + 1)
    values = np.empty(candidates.size)
    logarithms = np.log(np.maximum(np.arange(BINS + 1.0), 1.0))  # of 0 bins: nothing to spread
    for start in range(0, candidates.size, _BLOCK):
        block = candidates[start : start + _BLOCK]
        edges = _code_edges()[block]
        tail = total - below[block]
        sums, filled = np.diff(below[edges]), np.diff(occupied[edges])
        # The last code ends before B; B itself holds the tail, and counts as one bin.
        sums[:, -1] += tail
        filled[:, -1] += 1
        spread = (_xlogx(sums) - sums * logarithms[filled]).sum(axis=1)
        values[start : start + block.size] = (own[block] + _xlogx(tail) - spread) / total
    return candidates, values


@functools.cache
def _code_edges() -> NDArray[np.intp]:
    """(4096, 128): row B holds the first bin of each code for candidate B, and then B itself."""
    bins = np.arange(BINS, dtype=np.int64)[:, None]
    codes = np.arange(CODES, dtype=np.int64)[None, :]
    # floor((2j + 1) * 127 / (2B + 1)) >= c exactly when 2j + 1 >= c * (2B + 1) / 127.
    twice = -(-(codes * (2 * bins + 1)) // CODES)
    first = np.minimum(twice // 2, bins)
    return np.concatenate([first, bins], axis=1).astype(np.intp)


def _prefix(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(values)])


def _xlogx(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values * np.log(np.maximum(values, 1.0))  # counts: below 1 there is only 0
