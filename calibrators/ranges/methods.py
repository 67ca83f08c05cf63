"""Methods: statistics → ranges, in milliseconds and without the samples.

Every method is a function of one tensor's statistics, so another method needs no second pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from artefacts.errors import DataError, InputError
from calibrators.ranges.entropy import entropy
from calibrators.ranges.mse import mse
from calibrators.ranges.ranges import SMALLEST_AMAX, Range, Ranges
from calibrators.statistics.statistics import Statistics
from calibrators.statistics.tensor_statistics import TensorStatistics

__all__ = [
    "METHODS",
    "Method",
    "compute_range",
    "compute_ranges",
    "minmax",
    "parse_method",
    "percentile",
]

Method = Callable[[TensorStatistics], float]

DEFAULT_PERCENT = 99.99
DEAD_AMAX = 1.0  # any positive number does: zeros stay zeros


def minmax(statistics: TensorStatistics) -> float:
    """The largest |x|: nothing is clipped."""
    return statistics.amax


def percentile(statistics: TensorStatistics, percent: float = DEFAULT_PERCENT) -> float:
    """The value that ``percent`` % of all |x| do not exceed, zeros counted like any other value.

    Values are taken as evenly spread within a bin; 100 gives the largest |x| exactly. (NumPy's
    percentile counts zeros too. After a ReLU this leaves a wider range than counting only what
    is above zero.)
    """
    if percent == 100.0:
        return statistics.amax
    rank = percent * statistics.count / 100.0
    # 99.9 % of 50,000 is not quite 49,950 in binary; in a thin tail the next value may be far off.
    whole = round(rank)
    rank = (whole if math.isclose(rank, whole, rel_tol=1e-12) else rank) - statistics.zeros
    upto = np.cumsum(statistics.counts)
    place = int(np.searchsorted(upto, max(rank, 0.0)))
    place = min(place, upto.size - 1)
    inside = int(statistics.counts[place])
    share = (rank - (int(upto[place]) - inside)) / inside if inside else 0.0
    return min((place + max(share, 0.0)) * statistics.bin_width, statistics.amax)


METHODS: dict[str, Method] = {
    "minmax": minmax,
    "entropy": entropy,
    "percentile": percentile,
    "mse": mse,
}


def parse_method(text: str) -> Method:
    """The function of a method's name: one of ``METHODS``, or "percentile:99.9".

    Raises:
        InputError: no such method, or a percentile outside (0, 100].
    """
    name, _, argument = text.partition(":")
    if name not in METHODS or (argument and name != "percentile"):
        raise InputError(
            f"calibration method {text!r}, expected one of {', '.join(METHODS)} or "
            "percentile:<percent>; choose one of them"
        )
    if not argument:
        return METHODS[name]
    try:
        percent = float(argument)
    except ValueError:
        percent = float("nan")
    if not 0.0 < percent <= 100.0:
        raise InputError(
            f"percentile {argument!r}, expected a number above 0 and up to 100; "
            f"write for example percentile:{DEFAULT_PERCENT}"
        )
    return lambda statistics: percentile(statistics, percent)


def compute_range(statistics: TensorStatistics, method: str) -> Range:
    """Range of one tensor; tensors that are dead or constant do not need the method.

    Raises:
        InputError: no such method.
    """
    choose = parse_method(method)
    if statistics.is_dead:
        why = f"all {statistics.count} values are zero on these samples"
        return Range(amax=DEAD_AMAX, method="dead", why=why)
    if statistics.is_constant:
        why = f"all {statistics.count} values are {statistics.max:g} on these samples"
        return Range(amax=max(statistics.amax, SMALLEST_AMAX), method="constant", why=why)
    amax = choose(statistics)
    if amax < SMALLEST_AMAX:
        why = f"{method} gives {amax:.3g}, whose scale is no normal float32"
        return Range(amax=SMALLEST_AMAX, method=method, why=why)
    return Range(amax=amax, method=method)


def compute_ranges(statistics: Statistics, *, method: str = "entropy") -> Ranges:
    """Ranges of all tensors by one method.

    Args:
        statistics: of at least one sample.
        method: one of ``METHODS``, or "percentile:<percent>".

    Raises:
        InputError: no such method.
        DataError: the statistics have seen no sample, or NaN or Inf in a tensor.
    """
    check_usable(statistics)
    return Ranges(
        graph_hash=statistics.graph_hash,
        statistics_digest=statistics.digest,
        method=method,
        tensors={name: compute_range(cell, method) for name, cell in statistics.tensors.items()},
        samples=len(statistics.samples),
        preprocess=statistics.preprocess,
    )


def check_usable(statistics: Statistics) -> None:
    """Refuse statistics that no range may be taken from.

    Raises:
        DataError: no sample was seen, or NaN or Inf in a tensor.
    """
    if not statistics.samples:
        raise DataError(
            "statistics have seen 0 samples, expected at least 1; observe samples before "
            "choosing ranges"
        )
    for name, cell in statistics.tensors.items():
        if cell.nan or cell.inf:
            raise DataError(
                f"tensor {name} had {cell.nan} NaN and {cell.inf} Inf among its values, expected "
                "finite ones; mend the samples or exclude the layer, then observe again"
            )
