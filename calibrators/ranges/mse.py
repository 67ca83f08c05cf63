"""The MSE method: the range whose quantization changes the values least, in closed form.

With threshold T and scale s = T / 127, quantizing x >= 0 gives s * m with m = rint(min(x, T) / s).
The squared error (x - s m)^2 has the antiderivative

    G(x) = m s^3 / 12 + r^3 / 3 + max(x - T, 0)^3 / 3
    y = min(x, T),  m = rint(y / s),  r = y - m s

(each full step of the quantizer adds s^3 / 12). Taking the values of a bin [a, b) as evenly spread,

    MSE(T) = sum_j n_j (G(b_j) - G(a_j)) / (b_j - a_j) / count

over all bins; zeros add no error but count. The bin of the largest value is taken as that value
alone: a ceiling (ReLU6, Clip, pixels) puts a point mass there, which even spreading would blur.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibrators.statistics.tensor_statistics import BINS, TensorStatistics

__all__ = ["mse", "quantization_error"]

_CODES = 127
_SMALLEST_SHARE = 2.0**-9  # of amax: below, a histogram of 4096 bins has nothing to tell apart
_CANDIDATES = 200
_REFINED = 32
_TRIED_AT_ONCE = 10
_BLOCK = 16  # thresholds at a time: the work arrays stay in the cache


def mse(statistics: TensorStatistics) -> float:
    """Threshold of smallest mean squared error; ties go to the larger one.

    200 thresholds from amax / 512 to amax, evenly spaced in their logarithm, then 32 between the
    neighbours of the best.

    Args:
        statistics: of a tensor with at least one value other than zero.
    """
    coarse = statistics.amax * np.geomspace(1.0, _SMALLEST_SHARE, _CANDIDATES)
    clipping = _clipping_error(statistics, coarse)
    errors = np.full(_CANDIDATES, np.inf)
    for start in range(0, _CANDIDATES, _TRIED_AT_ONCE):
        # Clipping alone errs more and more towards smaller thresholds: none of the rest is better.
        if clipping[start] > errors.min():
            break
        tried = slice(start, start + _TRIED_AT_ONCE)
        errors[tried] = quantization_error(statistics, coarse[tried])
    best = int(errors.argmin())  # the first one is the largest
    low, high = coarse[min(best + 1, _CANDIDATES - 1)], coarse[max(best - 1, 0)]
    fine = np.geomspace(high, low, _REFINED)
    fine = np.sort(np.append(fine, coarse[best]))[::-1]
    return float(fine[int(quantization_error(statistics, fine).argmin())])


def quantization_error(
    statistics: TensorStatistics, thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean squared error of the values when quantized with each threshold.

    Args:
        statistics: of a tensor with at least one value.
        thresholds: (K,) positive.

    Returns:
        (K,) errors in the square of the values' unit.
    """
    if statistics.is_dead:
        return np.zeros(len(thresholds))
    top = int(np.flatnonzero(statistics.counts)[-1])
    counts = statistics.counts[: top + 1].astype(np.float64)
    ceiling, counts[top] = counts[top], 0.0
    # sum n_j (G(b_j) - G(a_j)) = sum over edges of G times the difference of the counts around it.
    weights = -np.diff(counts, prepend=0.0, append=0.0)[: top + 1]
    (used,) = np.nonzero(weights)
    weights, edges = weights[used], used.astype(np.float64) * statistics.bin_width
    thresholds = np.asarray(thresholds, np.float64)
    errors = np.empty(thresholds.size)
    for start in range(0, thresholds.size, _BLOCK):
        block = thresholds[start : start + _BLOCK, None]
        spread = _antiderivative(edges, block) @ weights / statistics.bin_width
        errors[start : start + _BLOCK] = spread + ceiling * _squared_error(statistics.amax, block)
    return np.maximum(errors, 0.0) / statistics.count


def _clipping_error(
    statistics: TensorStatistics, thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Less than the mean squared error of clipping at each threshold: bins at their lower edges."""
    lower: NDArray[np.float64] = np.arange(BINS, dtype=np.float64) * statistics.bin_width
    moments = np.stack([statistics.counts * lower**power for power in range(3)])
    # From bin j up: moments[:, j]; one column more for thresholds above the last edge.
    above = np.concatenate([moments[:, ::-1].cumsum(axis=1)[:, ::-1], np.zeros((3, 1))], axis=1)
    count, first, second = above[:, np.searchsorted(lower, thresholds)]
    clipped = second - 2 * thresholds * first + thresholds**2 * count
    result: NDArray[np.float64] = (clipped - 1e-9 * second) / statistics.count
    return result


def _antiderivative(x: NDArray[np.float64], threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = threshold / _CODES
    inside = np.minimum(x, threshold) / scale
    steps = np.rint(inside)
    inside -= steps
    beyond = np.maximum(x - threshold, 0.0) / scale
    cubes: NDArray[np.float64] = steps / 4.0 + inside * inside * inside + beyond * beyond * beyond
    return cubes * (scale**3 / 3.0)


def _squared_error(x: float, threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = threshold[:, 0] / _CODES
    error: NDArray[np.float64] = x - scale * np.minimum(np.rint(x / scale), _CODES)
    return error * error
