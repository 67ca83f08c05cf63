"""How far a distribution is from another: saturation, population stability, Kolmogorov-Smirnov."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.monitoring.grid import BINS

__all__ = ["Distances", "distances", "measure", "shares_of"]

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
    measured = measure(counts[None], shares_of(calibrated[None]), channels)
    return Distances(**{name: float(values[0]) for name, values in measured.items()})


def measure(
    counts: NDArray[np.float64], usual: NDArray[np.float64], channels: int
) -> dict[str, NDArray[np.float64]]:
    """The distances of many windows at once: counts (windows, bins) from shares of their groups."""
    found = shares_of(counts)
    p, q = np.maximum(found, _FLOOR), np.maximum(usual, _FLOOR)
    psi = ((p - q) * np.log(p / q)).sum(-1)
    ks = np.abs(np.cumsum(found - usual, -1)).max(-1)
    outer = (found - usual)[:, :channels, [0, -1]].sum(-1)
    return {
        "saturation": outer.max(-1, initial=0.0),
        "psi": psi[:, :channels].max(-1),
        "ks": ks[:, :channels].max(-1),
        "step_psi": psi[:, channels],
        "colour_ks": ks[:, channels + 1 :].max(-1, initial=0.0),
    }


def shares_of(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts (windows, bins) to shares (windows, groups, bins of a group)."""
    groups = counts.reshape(len(counts), -1, BINS)
    shares: NDArray[np.float64] = groups / groups.sum(-1, keepdims=True)
    return shares
