"""How many samples would tell a paired difference, where those at hand do not."""

from __future__ import annotations

import math
from statistics import NormalDist

from benchmarks.statistics.bootstrap import CONFIDENCE, Interval

__all__ = ["POWER", "samples_for_difference", "samples_for_split", "samples_to_narrow"]

POWER = 0.8
"""Chance that so many samples tell a difference as large as the one that was seen."""
_MOST = 10_000_000
_Z_TWO_SIDED = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
_Z_POWER = NormalDist().inv_cdf(POWER)


def samples_for_split(only_first: int, only_second: int, samples: int) -> int | None:
    """Samples with which McNemar's test would tell the split that was seen.

    With a share ``s`` of samples that only one got right and a difference ``d`` of the two shares,
    ``n = ((z sqrt(s) + z' sqrt(s - d^2)) / d)^2`` (Connor, Biometrics 43, 1987). The exact test
    needs somewhat more where few samples are split.

    Args:
        only_first: samples that only the first system got right.
        only_second: the same for the second.
        samples: how many both answered.

    Returns:
        The number; None where the split is even, which no number of samples tells from chance.
    """
    split, difference = (only_first + only_second) / samples, (only_second - only_first) / samples
    if difference == 0:
        return None
    spread = _Z_TWO_SIDED * math.sqrt(split) + _Z_POWER * math.sqrt(split - difference**2)
    return _bounded((spread / difference) ** 2)


def samples_for_difference(difference: float, interval: Interval, samples: int) -> int | None:
    """Samples with which the interval of a mean difference would leave out 0.

    Its width falls with the root of their number.

    Args:
        difference: that was seen.
        interval: of it.
        samples: how many it was taken on.

    Returns:
        The number; None where no difference was seen, or nothing varied.
    """
    deviation = (interval.high - interval.low) / (2 * _Z_TWO_SIDED)
    if difference == 0 or deviation == 0 or not math.isfinite(deviation):
        return None
    return _bounded(samples * ((_Z_TWO_SIDED + _Z_POWER) * deviation / difference) ** 2)


def samples_to_narrow(interval: tuple[float, float], width: float, samples: int) -> int | None:
    """Samples with which an interval would reach no further than ``width`` to each side.

    Its width falls with the root of their number.

    Args:
        interval: that was found.
        width: half of what it may be, larger than 0.
        samples: how many it was taken on.

    Returns:
        The number; None where it is as narrow already, or nothing bounds it.
    """
    half = (interval[1] - interval[0]) / 2
    if not math.isfinite(half) or half <= width:
        return None
    return _bounded(samples * (half / width) ** 2)


def _bounded(number: float) -> int | None:
    """Rounded up; None for more samples than anybody has."""
    return math.ceil(number) if number <= _MOST else None
