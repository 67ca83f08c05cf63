"""Where values of an input are counted, so that requests compare with calibration data.

Values have 12 bins for each channel: 10 of them 2^k wide with edges at multiples of 2^k, and what
lies below and above. Steps between neighbours have 12 bins by powers of two, from 2^(k-7): they see
noise, padding and another way of resizing, which leave the values where they were. Where there are
channels, the first less the last has 12 bins around 0: it sees their order, which the values of
many images hardly tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.monitoring.places import channel_axis

__all__ = ["BINS", "Counter", "Grid", "grid_for"]

BINS = 12
_INNER = BINS - 2
_LEVELS = 128  # of a bin
_COLOUR_LEVELS = 32  # finer, since channels of one place are alike

Counts = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The bins of one input.

    Attributes:
        channel_axis: of what is counted apart; None for nothing.
        channels: how many; 1 for all values together.
        width_exponent: k of the inner bins' width, 2^k.
        first: the inner bins begin at first * 2^k.
    """

    channel_axis: int | None
    channels: int
    width_exponent: int
    first: int

    @property
    def bins(self) -> int:
        """Of all channels, of the steps, and of differences of channels."""
        return (self.channels + 1 + (self.channels > 1)) * BINS


def grid_for(shape: tuple[int, ...], low: float, high: float) -> Grid:
    """The grid of an input whose calibration data lies between two values.

    Args:
        shape: of a sample, e.g. ``(1, 3, 224, 224)``.
        low: the smallest.
        high: the largest.
    """
    span = max(high - low, max(abs(low), abs(high)) * 2.0**-20, 2.0**-100)
    exponent = math.ceil(math.log2(span / (_INNER - 1)))
    axis = channel_axis(shape)
    return Grid(
        channel_axis=axis,
        channels=1 if axis is None else shape[axis],
        width_exponent=exponent,
        first=math.floor(math.ldexp(low, -exponent)),
    )


class Counter:
    """Counts values on a grid by tables, in some µs."""

    def __init__(self, grid: Grid) -> None:
        """Compute once what every sample needs."""
        self._bins, self._has_colours = grid.bins, grid.channels > 1
        width, levels = math.ldexp(1.0, grid.width_exponent), BINS * _LEVELS
        self._low = (grid.first - 1) * width
        self._high = self._low + (BINS - 2.0**-10) * width
        self._scale = _LEVELS / width
        # Channels lie one above the other: of two neighbours the difference is that of their
        # values, of two channels it is that and as many levels as lie between them.
        base = np.arange(grid.channels, dtype=np.float64)[:, None] * levels
        apart = (grid.channels - 1) * levels
        self._base = base - self._low * self._scale
        self._value_bins = np.arange(grid.channels * levels) // _LEVELS
        steps = np.arange(-levels, levels)
        self._step_bins = np.roll(np.frexp(np.abs(steps))[1] + grid.channels * BINS, levels)
        colours = (apart - np.arange(apart + levels)) // _COLOUR_LEVELS + BINS // 2
        self._colour_bins = np.clip(colours, 0, BINS - 1) + (grid.channels + 1) * BINS

    def count(self, values: NDArray[np.float64]) -> Counts:
        """Counts by bin: of every channel, then of steps, then of differences of channels.

        Args:
            values: from ``Places``; they are overwritten.
        """
        # fmax takes what is no NaN: a NaN counts as below.
        np.fmin(np.fmax(values, self._low, out=values), self._high, out=values)
        values *= self._scale
        values += self._base
        levels = values.astype(np.intp)
        codes = [self._value_bins.take(levels).reshape(-1)]
        codes.append(self._step_bins[levels[1] - levels[0]].reshape(-1))
        if self._has_colours:
            codes.append(self._colour_bins.take(levels[0, -1] - levels[0, 0]))
        return np.bincount(np.concatenate(codes), minlength=self._bins)
