"""Percentiles as trtexec defines them, plain and weighted by round."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from artefacts.errors import RequestError

__all__ = ["percentile", "weighted_percentiles"]

Floats = npt.NDArray[np.float64]


def percentile(samples: npt.ArrayLike, percent: float) -> float:
    """The ``percent``-th percentile of ``samples``: a measured value, never interpolated.

    ``sorted[max(n - 1 - floor((1 - percent/100) * n), 0)]``; the median averages the middle two.
    This is trtexec's definition (NVIDIA/TensorRT, samples/common/sampleReporting.cpp), with the
    excluded count computed exactly: trtexec does it in float32, which at n = 100 and p99 excludes
    0 samples where the formula says 1.

    Args:
        samples: any number of values above zero, e.g. latencies (n,).
        percent: in [0, 100].

    Raises:
        RequestError: no samples, or ``percent`` outside [0, 100].
    """
    values = np.sort(np.asarray(samples, dtype=np.float64))
    if values.size == 0:
        raise RequestError(
            f"percentile {percent:g} asked of 0 samples, expected at least 1; measure longer"
        )
    return float(np.mean(values[list(_ranks(values.size, percent))]))


def weighted_percentiles(ordered: Floats, counts: Floats, percents: tuple[float, ...]) -> Floats:
    """Percentiles where value i is there ``counts[b, i]`` times: (resamples, percents).

    The same definition as :func:`percentile` without building the repeated arrays: a bootstrap
    draws rounds, and drawing a round twice counts its samples twice.

    Args:
        ordered: ascending values (n,).
        counts: how often each counts in each resample (resamples, n), no row all zero.
        percents: percentiles in [0, 100].
    """
    cumulated = np.cumsum(counts, axis=1)
    found = np.empty((len(counts), len(percents)))
    for row, total in enumerate(cumulated):
        for column, percent in enumerate(percents):
            places = np.searchsorted(total, _ranks(int(total[-1]), percent), side="right")
            found[row, column] = ordered[places].sum() / places.size
    return found


def _ranks(count: int, percent: float) -> tuple[int, ...]:
    """Indices into the sorted samples whose mean is the percentile."""
    if not 0 <= percent <= 100:
        raise RequestError(f"percentile {percent:g}, expected 0 to 100; choose one in that range")
    if percent == 50:
        return ((count - 1) // 2, count // 2)
    # (100 - percent) * count is exact for the percentiles people ask for; 1 - 0.9 is not.
    excluded = math.floor((100 - percent) * count / 100)
    return (max(count - 1 - excluded, 0),)
