"""What one pass over the samples leaves of each tensor.

Everything kept is a count, a maximum or a minimum, so statistics do not depend on the order of the
samples, on how they were batched, or on how they were split between runs.

The histogram counts |x| in 4096 bins over [0, 2^k). It grows by adding neighbouring bins, which
is exact: scaling by a power of two does not round, and
floor(floor(x * n / 2^k) / 2) = floor(x * n / 2^(k + 1)). The largest value always lies in the
upper half of [0, 2^k), so a bin is never wider than amax / 2048. (Histogram after the pair-merging
scheme that NVIDIA describes for its calibrator: mlcommons/inference_results_v4.1,
closed/NVIDIA/documentation/calibration.md; anchoring at powers of two makes it exact.)

Sums follow from the histogram, each value within half a bin of its own. Adding the values up
exactly was tried and took longer than the histogram.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calibrators.statistics import counting as native

__all__ = ["BINS", "LOWEST_EXPONENT", "TensorStatistics", "folded"]

BINS = 4096
_BIN_BITS = 12
LOWEST_EXPONENT = -148  # of 2^-149, the smallest float32 above zero: 2^-149 < 2^-148
_STEP = 1 << 15  # values at a time: the work arrays stay in the L2 cache


class _Buffers(threading.local):
    """Work arrays of a thread: made once, since fresh memory costs as much as the arithmetic."""

    def __init__(self) -> None:
        self.nonzero = np.empty(_STEP, np.bool_)
        self.scaled = np.empty(_STEP, np.float32)
        self.places = np.empty(_STEP, np.intp)


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
        min: smallest finite value, exactly; +inf before the first one.
        max: largest finite value, exactly; -inf before the first one.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    exponent: int = LOWEST_EXPONENT
    count: int = 0
    zeros: int = 0
    nan: int = 0
    inf: int = 0
    min: float = math.inf
    max: float = -math.inf

    @property
    def amax(self) -> float:
        """Largest finite |x|; 0.0 before the first value."""
        return max(-self.min, self.max, 0.0)

    @property
    def sum_squares(self) -> float:
        """Sum of x^2 over the finite values, each taken as the middle of its bin."""
        return float(self.counts @ self._middles() ** 2)

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
        values = array
        if array.dtype != np.float32 or not array.flags.c_contiguous:
            with np.errstate(over="ignore"):
                values = np.ascontiguousarray(array, dtype=np.float32)
        values = values.reshape(-1)
        if native.library is not None:
            native.add_values(native.library, self, values)
            return
        for start in range(0, values.size, _STEP):
            self._add_step(values[start : start + _STEP])

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
        return (*whole, self.min, self.max)

    def _middles(self) -> NDArray[np.float64]:
        """Where the values of each bin are taken to be; the last bin ends at the largest value."""
        lower: NDArray[np.float64] = np.arange(BINS, dtype=np.float64) * self.bin_width
        return (lower + np.minimum(lower + self.bin_width, self.amax)) / 2

    def _add_step(self, values: NDArray[np.float32]) -> None:
        low, high = _extremes(values)
        if not (math.isfinite(low) and math.isfinite(high)):
            values = self._without_non_finite(values)
            if values.size == 0:
                return
            low, high = _extremes(values)
        self.count += values.size
        self.min, self.max = min(self.min, low), max(self.max, high)
        nonzero = np.not_equal(values, 0.0, out=_buffers.nonzero[: values.size])
        zeros = values.size - int(np.count_nonzero(nonzero))
        self.zeros += zeros
        if zeros < values.size:
            self._grow(math.frexp(max(-low, high))[1])
            scaled = _buffers.scaled[: values.size]
            self._count(np.abs(values, out=scaled) if low < 0 else values, zeros, scaled)

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

    def _count(
        self, absolute: NDArray[np.float32], zeros: int, scaled: NDArray[np.float32]
    ) -> None:
        """Add magnitudes below 2^exponent to the histogram, with ``scaled`` to work in."""
        scale = math.ldexp(1.0, _BIN_BITS - self.exponent)
        places = _buffers.places[: absolute.size]
        # To an integer: cuts the fraction off, which is floor from 0 up. The factor fits a float32
        # for all but the tiniest ranges; either product is exact.
        if self.exponent > -100:
            places[...] = np.multiply(absolute, np.float32(scale), out=scaled)
        else:
            places[...] = absolute * np.float64(scale)
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
    result = np.zeros(BINS, np.int64)
    result[: BINS // group] = counts.reshape(-1, group).sum(axis=1)
    return result
