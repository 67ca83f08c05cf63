"""How far a distribution is from another: saturation, population stability, Kolmogorov-Smirnov."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.monitoring.grid import BINS

__all__ = ["Distances", "distances", "shares_of"]

_FLOOR = 1e-3  # of a share: what one value in thousands says of a logarithm is chance


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Requests against calibration data; of an input's channels the one that is farthest.

    Attributes:
        saturation: share of values beyond the calibrated range, NaN among them, above that of the
            calibration data.
        psi: population stability index of the values, the sum of (p - q) ln(p / q) over bins.
        ks: Kolmogorov-Smirnov distance of the values, the largest difference of cumulated shares.
        step_psi: population stability index of the steps between neighbouring values.
        colour_ks: Kolmogorov-Smirnov distance of first channel less last; 0 where there is one.
    """

    saturation: float
    psi: float
    ks: float
    step_psi: float
    colour_ks: float


def distances(
    counts: NDArray[np.float64], calibrated: NDArray[np.float64], channels: int
) -> Distances:
    """Of counts by bin, and the shares that were calibrated."""
    found, usual = shares_of(counts), calibrated.reshape(-1, BINS)
    p, q = np.maximum(found, _FLOOR), np.maximum(usual, _FLOOR)
    psi = ((p - q) * np.log(p / q)).sum(1)
    ks = np.abs(np.cumsum(found - usual, 1)).max(1)
    outer = (found - usual)[:channels, [0, -1]].sum(1)
    return Distances(
        saturation=max(0.0, float(outer.max())),
        psi=float(psi[:channels].max()),
        ks=float(ks[:channels].max()),
        step_psi=float(psi[channels]),
        colour_ks=float(ks[channels + 1 :].max(initial=0.0)),
    )


def shares_of(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts by bin to shares of their group, a row each."""
    groups = counts.reshape(-1, BINS)
    shares: NDArray[np.float64] = groups / groups.sum(1, keepdims=True)
    return shares
