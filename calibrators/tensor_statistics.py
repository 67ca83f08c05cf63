"""What one pass over the samples leaves of each tensor: a histogram and exact sums.

Everything here is a sum, a maximum or a minimum of whole numbers, so statistics do not depend on
the order of the samples, on how they were batched, or on how they were split between runs.

The histogram counts |x| in 4096 bins over [0, 2^k). It grows by adding neighbouring bins, which
is exact: scaling by a power of two does not round, and
floor(floor(x * n / 2^k) / 2) = floor(x * n / 2^(k + 1)). The largest value always lies in the
upper half of [0, 2^k), so a bin is never wider than amax / 2048. (Histogram after the pair-merging
scheme that NVIDIA describes for its calibrator: mlcommons/inference_results_v4.1,
closed/NVIDIA/documentation/calibration.md; anchoring at powers of two makes it exact.)

Sums are exact as well (``exact_sums``): every float32 is a whole number of units of 2^-149, and
every square one of 2^-298, so both are kept as Python integers in these units.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calibrators.exact_sums import SQUARE_UNIT, STEP, SUM_UNIT, add_exactly

__all__ = ["BINS", "LOWEST_EXPONENT", "TensorStatistics", "folded"]

BINS = 4096
_BIN_BITS = 12
# From this share of zeros in a step on, e.g. after a ReLU, taking the others out first is faster.
_MANY_ZEROS = 0.4
LOWEST_EXPONENT = -148  # of 2^-149, the smallest float32 above zero: 2^-149 < 2^-148


class _Buffers(threading.local):
    """Work arrays of a thread: made once, since fresh memory costs as much as the arithmetic."""

    def __init__(self) -> None:
        self.absolute = np.empty(STEP, np.float32)
        self.nonzero = np.empty(STEP, np.bool_)
        self.places = np.empty(STEP, np.intp)


_buffers = _Buffers()


@dataclass(kw_only=True)
class TensorStatistics:
    """Statistics of one tensor, ready to be added to and merged.

    Attributes:
        counts: (4096,) int64, how many values have floor(|x| * 4096 / 2^exponent) = bin; zeros
            are not among them.
        exponent: k of the range [0, 2^k) of the histogram.
        count: finite values seen, zeros among them.
        zeros: values equal to zero.
        nan: NaNs seen.
        inf: infinities seen, of both signs.
        min: smallest finite value; +inf before the first one.
        max: largest finite value; -inf before the first one.
        sum_units: sum of the finite values in units of 2^-149.
        square_units: sum of their squares in units of 2^-298.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    exponent: int = LOWEST_EXPONENT
    count: int = 0
    zeros: int = 0
    nan: int = 0
    inf: int = 0
    min: float = math.inf
    max: float = -math.inf
    sum_units: int = 0
    square_units: int = 0

    @property
    def amax(self) -> float:
        """Largest finite |x|; 0.0 before the first value."""
        return max(-self.min, self.max, 0.0)

    @property
    def sum(self) -> float:
        """Sum of the finite values, rounded once."""
        return _ratio(self.sum_units, -SUM_UNIT)

    @property
    def sum_squares(self) -> float:
        """Sum of the squares of the finite values, rounded once."""
        return _ratio(self.square_units, -SQUARE_UNIT)

    @property
    def is_dead(self) -> bool:
        """Whether no value differs from zero."""
        return self.zeros == self.count

    @property
    def is_constant(self) -> bool:
        """Whether there are values and all are the same."""
        return self.count > 0 and self.min == self.max

    @property
    def bin_width(self) -> float:
        """Width of one bin, 2^(exponent - 12)."""
        return math.ldexp(1.0, self.exponent - _BIN_BITS)

    @classmethod
    def of(cls, array: NDArray[np.floating]) -> TensorStatistics:
        """Statistics of one array."""
        statistics = cls()
        statistics.add(array)
        return statistics

    def add(self, array: NDArray[np.floating]) -> None:
        """Count all values of an array of floats, of any shape.

        float64 values are rounded to float32 first (a value that does not fit is an infinity):
        no engine stores an INT8 layer's input more precisely.

        Raises:
            TypeError: the array does not hold floats.
        """
        if array.dtype.kind != "f":
            raise TypeError(f"statistics need floats, found an array of {array.dtype}")
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(array, dtype=np.float32).ravel()
        set_aside = [
            self._add_step(values[start : start + STEP], counted=False)
            for start in range(0, values.size, STEP)
        ]
        # Values too small for the exact sums of their step, on finer and finer grids.
        while (rest := np.concatenate(set_aside) if set_aside else values[:0]).size:
            set_aside = [
                self._add_step(rest[start : start + STEP], counted=True)
                for start in range(0, rest.size, STEP)
            ]

    def merge(self, other: TensorStatistics) -> None:
        """Add what ``other`` has counted; ``other`` is left as it is."""
        if not other.is_dead:
            self._grow(other.exponent)
            self.counts += folded(other.counts, self.exponent - other.exponent)
        self.count += other.count
        self.zeros += other.zeros
        self.nan += other.nan
        self.inf += other.inf
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)
        self.sum_units += other.sum_units
        self.square_units += other.square_units

    def copy(self) -> TensorStatistics:
        """An equal object that shares nothing with this one."""
        duplicate = TensorStatistics()
        duplicate.merge(self)
        return duplicate

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TensorStatistics):
            return NotImplemented
        return self._state() == other._state() and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def _state(self) -> tuple[float, ...]:
        whole = (self.exponent, self.count, self.zeros, self.nan, self.inf)
        return (*whole, self.min, self.max, self.sum_units, self.square_units)

    def _add_step(self, values: NDArray[np.float32], *, counted: bool) -> NDArray[np.float32]:
        """Add at most ``STEP`` values; those returned are counted, but not in the sums yet."""
        low, high = _extremes(values)
        if not (math.isfinite(low) and math.isfinite(high)):
            values = self._without_non_finite(values)
            if values.size == 0:
                return values
            low, high = _extremes(values)
        if not counted:
            self.min, self.max = min(self.min, low), max(self.max, high)
            self.count += values.size
        nonzero = np.not_equal(values, 0.0, out=_buffers.nonzero[: values.size])
        zeros = values.size - int(np.count_nonzero(nonzero))
        self.zeros += zeros
        if zeros > _MANY_ZEROS * values.size:
            values, zeros = values[np.flatnonzero(nonzero)], 0
            nonzero = np.not_equal(values, 0.0, out=_buffers.nonzero[: values.size])
        absolute = np.abs(values, out=_buffers.absolute[: values.size])
        top = math.frexp(max(-low, high))[1]
        sum_units, square_units, small = add_exactly(values, absolute, nonzero, top)
        self.sum_units += sum_units
        self.square_units += square_units
        if not counted and values.size > zeros:
            self._grow(top)
            self._count(absolute, zeros)
        return small

    def _without_non_finite(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        finite = np.isfinite(values)
        nan = int(np.count_nonzero(np.isnan(values)))
        self.nan += nan
        self.inf += values.size - int(np.count_nonzero(finite)) - nan
        return values[finite]

    def _grow(self, exponent: int) -> None:
        """Make the histogram reach [0, 2^exponent)."""
        if exponent > self.exponent:
            self.counts = folded(self.counts, exponent - self.exponent)
            self.exponent = exponent

    def _count(self, absolute: NDArray[np.float32], zeros: int) -> None:
        """Add magnitudes below 2^exponent to the histogram; they are overwritten."""
        scale = math.ldexp(1.0, _BIN_BITS - self.exponent)
        # The factor fits a float32 for all but the tiniest ranges; either product is exact.
        if self.exponent > -100:
            scaled = np.multiply(absolute, np.float32(scale), out=absolute)
        else:
            scaled = absolute * np.float64(scale)
        places = _buffers.places[: absolute.size]
        places[...] = scaled  # to an integer: cuts the fraction off, which is floor from 0 up
        self.counts += np.bincount(places, minlength=BINS)
        self.counts[0] -= zeros


def _extremes(values: NDArray[np.float32]) -> tuple[float, float]:
    """Smallest and largest value; -0.0 counts as 0.0, which of them comes first is chance."""
    return float(values.min()) + 0.0, float(values.max()) + 0.0


def folded(counts: NDArray[np.int64], steps: int) -> NDArray[np.int64]:
    """The histogram of a range 2^steps times as wide: neighbouring bins added."""
    if steps == 0:
        return counts
    group = 1 << min(steps, _BIN_BITS)
    folded = np.zeros(BINS, np.int64)
    folded[: BINS // group] = counts.reshape(-1, group).sum(axis=1)
    return folded


def _ratio(units: int, bits: int) -> float:
    """The float nearest to units / 2^bits (dividing integers rounds once)."""
    try:
        return units / (1 << bits)
    except OverflowError:
        return math.copysign(math.inf, units)
