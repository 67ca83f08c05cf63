"""Exact sums of float32 values and of their squares, at the speed of a few passes.

A float64 adds whole multiples of a unit without rounding, in any order, while the sum stays below
2^53 units. For values below 2^top take the unit u = 2^(top - 36): values of at least 2^(top - 13)
are whole multiples of it (a float32 has 24 bits), and 2^15 of them add up to less than 2^51 u.
Their squares are multiples of u^2 below 2^72 u^2; adding and taking away 1.5 * 2^52 * 2^36 u^2
splits each into a multiple of 2^36 u^2 and a rest of at most half of that, and either part adds up
exactly too. Smaller values are few: they are set aside and summed on a finer grid of their own.
"""

from __future__ import annotations

import math
import threading

import numpy as np
from numpy.typing import NDArray

__all__ = ["SQUARE_UNIT", "STEP", "SUM_UNIT", "add_exactly"]

SUM_UNIT = -149  # every float32 is a whole number of 2^SUM_UNIT
SQUARE_UNIT = -298
STEP = 1 << 15  # values at a time; the work arrays stay in the L2 cache


class _Buffers(threading.local):
    """Work arrays of a thread: made once, since fresh memory costs as much as the arithmetic."""

    def __init__(self) -> None:
        self.wide = np.empty(STEP, np.float64)
        self.high = np.empty(STEP, np.float64)
        self.small = np.empty(STEP, np.bool_)


_buffers = _Buffers()


def add_exactly(
    values: NDArray[np.float32],
    absolute: NDArray[np.float32],
    nonzero: NDArray[np.bool_],
    top: int,
) -> tuple[int, int, NDArray[np.float32]]:
    """Sum at most ``STEP`` values.

    Args:
        values: (n,) finite, all below 2^top in magnitude.
        absolute: (n,) their magnitudes.
        nonzero: (n,) which of them are not zero.
        top: as above.

    Returns:
        The sum in units of 2^-149 and the sum of squares in units of 2^-298, both without the
        values that are returned third: those that are too small for this grid.
    """
    size = values.size
    wide, high, is_small = (_buffers.wide[:size], _buffers.high[:size], _buffers.small[:size])
    np.less(absolute, np.float32(math.ldexp(1.0, max(top - 13, SUM_UNIT))), out=is_small)
    np.logical_and(is_small, nonzero, out=is_small)
    wide[...] = values
    places = np.flatnonzero(is_small)
    if places.size:
        wide[places] = 0.0
    sum_units = _units(wide.sum(), -SUM_UNIT)
    splitter = math.ldexp(1.5, 2 * top - 36 + 52)
    np.multiply(wide, wide, out=wide)
    np.add(wide, splitter, out=high)
    np.subtract(high, splitter, out=high)
    square_units = _units(high.sum(), -SQUARE_UNIT)
    np.subtract(wide, high, out=wide)
    return sum_units, square_units + _units(wide.sum(), -SQUARE_UNIT), values[places]


def _units(value: np.float64, bits: int) -> int:
    """``value`` in units of 2^-bits, of which it is a whole number."""
    return int(math.ldexp(float(value), bits))
