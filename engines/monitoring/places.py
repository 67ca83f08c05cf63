"""Which values of a sample are looked at: random ones and their neighbours, the same every turn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PAIRS", "Places", "channel_axis"]

PAIRS = 64  # of each channel and sample
MOST_CHANNELS = 3
_TURNS = 16
_MOST_KEPT = 512  # sets of places, of all shapes


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Of what is counted apart: behind the batch or last, where two or three channels lie there."""
    for axis in (1, len(shape) - 1) if len(shape) >= 3 else ():
        if 1 < shape[axis] <= MOST_CHANNELS:
            return axis
    return None


class Places:
    """Flat indices by shape and turn, made when they are first asked for."""

    def __init__(self, axis: int | None, channels: int) -> None:
        """``axis`` holds the channels that are counted apart; None for none."""
        self._axis, self._channels = axis, channels
        self._known: dict[tuple[tuple[int, ...], int], NDArray[np.intp]] = {}

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a sample has the channels that are counted apart, and values."""
        axis = self._axis
        return 0 not in shape and (axis is None or shape[axis] == self._channels)

    def values(self, sample: NDArray[Any], turn: int) -> NDArray[Any]:
        """Values (2, channels, PAIRS) of a sample: random ones, and the next to each.

        Args:
            sample: that fits.
            turn: which places.
        """
        at = self._at(sample.shape, turn % _TURNS)
        return sample.reshape(-1).take(at)

    def _at(self, shape: tuple[int, ...], turn: int) -> NDArray[np.intp]:
        places = self._known.get((shape, turn))
        if places is None:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            places = self._known[shape, turn] = self._pairs(shape, turn)
        return places

    def _pairs(self, shape: tuple[int, ...], turn: int) -> NDArray[np.intp]:
        random = np.random.default_rng(turn)
        apart = [axis for axis, length in enumerate(shape) if length > 1 and axis != self._axis]
        along = apart[-1] if apart else None
        flat = np.zeros((2, self._channels, PAIRS), np.intp)
        for axis, length in enumerate(shape):
            stride = math.prod(shape[axis + 1 :])
            if axis == self._axis:
                flat += stride * np.arange(length)[:, None]
                continue
            step = int(axis == along)
            flat += stride * random.integers(0, length - step, PAIRS)
            flat[1] += stride * step
        return flat
