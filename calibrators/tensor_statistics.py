"""What one pass over the samples leaves of each tensor: a histogram and exact sums.

Everything here is a sum, a maximum or a minimum of whole numbers, so statistics do not depend on
the order of the samples, on how they were batched, or on how they were split between runs.

The histogram counts |x| in 4096 bins over [0, 2^k). It grows by adding neighbouring bins, which
is exact: scaling by a power of two does not round, and
floor(floor(x * n / 2^k) / 2) = floor(x * n / 2^(k + 1)). The largest value always lies in the
upper half of [0, 2^k), so a bin is never wider than amax / 2048. (Histogram after the pair-merging
scheme that NVIDIA describes for its calibrator: mlcommons/inference_results_v4.1,
closed/NVIDIA/documentation/calibration.md; anchoring at powers of two makes it exact.)

Sums are exact as well: every float32 is a whole number of units of 2^-149, and every square one of
2^-298, so both are kept as Python integers in these units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "SQUARE_UNIT", "SUM_UNIT", "TensorStatistics"]

BINS = 4096
_BIN_BITS = 12
LOWEST_EXPONENT = -148  # of 2^-149, the smallest float32 above zero: 2^-149 < 2^-148

SUM_UNIT = -149  # a sum is a whole number of 2^SUM_UNIT
SQUARE_UNIT = -298

# Values per step: the float64 work arrays stay in the L2 cache, and the sums of a step are exact
# (see _scan): 36 bits of a value plus 15 bits of a count are below the 53 of a float64.
_STEP = 1 << 15


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
        if values.size == 0:
            return
        low, high = _extremes(values)
        if not (math.isfinite(low) and math.isfinite(high)):
            values = self._set_aside_non_finite(values)
            if values.size == 0:
                return
            low, high = _extremes(values)
        self.count += values.size
        self.min, self.max = min(self.min, low), max(self.max, high)
        top = _exponent(max(-low, high))
        if top is None:
            self.zeros += values.size
            return
        self._grow(top)
        self._scan(values, top)

    def merge(self, other: TensorStatistics) -> None:
        """Add what ``other`` has counted; ``other`` is left as it is."""
        if not other.is_dead:
            self._grow(other.exponent)
            self.counts += _folded(other.counts, self.exponent - other.exponent)
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

    def _set_aside_non_finite(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        finite = np.isfinite(values)
        nan = int(np.count_nonzero(np.isnan(values)))
        self.nan += nan
        self.inf += values.size - int(np.count_nonzero(finite)) - nan
        return values[finite]

    def _grow(self, exponent: int) -> None:
        """Make the histogram reach [0, 2^exponent)."""
        if exponent > self.exponent:
            self.counts = _folded(self.counts, exponent - self.exponent)
            self.exponent = exponent

    def _scan(self, values: NDArray[np.float32], top: int, *, count: bool = True) -> None:
        """Add finite values below 2^top to the exact sums and, once, to the histogram.

        With u = 2^(top - 36), values of at least 2^(top - 13) are whole multiples of u (a float32
        has 24 bits), so a float64 adds 2^15 of them without rounding, in any order. Squares are
        multiples of u^2 below 2^72 u^2: adding and taking away 1.5 * 2^52 * 2^36 u^2 splits each
        into a multiple of 2^36 u^2 and a rest below that, and either part adds up exactly too.
        Smaller values are few; they are set aside and summed on their own finer grid.
        """
        size = min(_STEP, values.size)
        absolute, wide, high = np.empty(size, np.float32), np.empty(size), np.empty(size)
        is_zero, is_small = np.empty(size, np.bool_), np.empty(size, np.bool_)
        smallest = np.float32(math.ldexp(1.0, max(top - 13, SUM_UNIT)))
        splitter = math.ldexp(1.5, 2 * top - 36 + 52)
        set_aside = []
        for start in range(0, values.size, _STEP):
            step = values[start : start + _STEP]
            if step.size < size:
                size = step.size
                absolute, is_zero, is_small = absolute[:size], is_zero[:size], is_small[:size]
                wide, high = wide[:size], high[:size]
            np.abs(step, out=absolute)
            np.equal(absolute, 0.0, out=is_zero)
            np.less(absolute, smallest, out=is_small)
            np.greater(is_small, is_zero, out=is_small)  # small, and not zero
            wide[...] = step
            small = np.flatnonzero(is_small)
            if small.size:
                set_aside.append(step[small])
                wide[small] = 0.0
            self.sum_units += _units(wide.sum(), -SUM_UNIT)
            np.multiply(wide, wide, out=wide)
            np.add(wide, splitter, out=high)
            np.subtract(high, splitter, out=high)
            self.square_units += _units(high.sum(), -SQUARE_UNIT)
            np.subtract(wide, high, out=wide)
            self.square_units += _units(wide.sum(), -SQUARE_UNIT)
            if count:
                self._count(absolute, int(np.count_nonzero(is_zero)))
        if set_aside:
            rest = np.concatenate(set_aside)
            below = _exponent(float(np.abs(rest).max()))
            assert below is not None  # zeros are not set aside
            self._scan(rest, below, count=False)

    def _count(self, absolute: NDArray[np.float32], zeros: int) -> None:
        """Add values from 0 to below 2^exponent to the histogram; they are overwritten."""
        # 2^(12 - k) fits a float32 for all but the tiniest ranges; either product is exact.
        if self.exponent > -100:
            scaled = np.multiply(
                absolute, np.float32(math.ldexp(1.0, _BIN_BITS - self.exponent)), out=absolute
            )
        else:
            scaled = absolute * np.float64(math.ldexp(1.0, _BIN_BITS - self.exponent))
        # To an integer: cuts the fraction off, which is floor from 0 up.
        self.counts += np.bincount(scaled.astype(np.intp), minlength=BINS)
        self.counts[0] -= zeros
        self.zeros += zeros


def _extremes(values: NDArray[np.float32]) -> tuple[float, float]:
    """Smallest and largest value; -0.0 counts as 0.0, which of them comes first is chance."""
    return float(values.min()) + 0.0, float(values.max()) + 0.0


def _exponent(amax: float) -> int | None:
    """The k for which 2^(k - 1) <= amax < 2^k; None for zero."""
    return math.frexp(amax)[1] if amax > 0 else None


def _folded(counts: NDArray[np.int64], steps: int) -> NDArray[np.int64]:
    """The histogram of a range 2^steps times as wide: neighbouring bins added."""
    if steps == 0:
        return counts
    group = 1 << min(steps, _BIN_BITS)
    folded = np.zeros(BINS, np.int64)
    folded[: BINS // group] = counts.reshape(-1, group).sum(axis=1)
    return folded


def _units(value: np.float64, bits: int) -> int:
    """``value`` in units of 2^-bits, of which it is a whole number."""
    return int(math.ldexp(float(value), bits))


def _ratio(units: int, bits: int) -> float:
    """The float nearest to units / 2^bits (dividing integers rounds once)."""
    try:
        return units / (1 << bits)
    except OverflowError:
        return math.copysign(math.inf, units)
