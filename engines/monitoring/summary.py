"""What the calibration data looked like, input by input, as the manifest carries it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.monitoring.distance import Distances, distances, measure, shares_of
from engines.monitoring.grid import Counter, Grid, grid_for
from engines.monitoring.places import Places, channel_axis

__all__ = ["WINDOW", "InputSummary", "Summariser"]

WINDOW = 50  # requests that are compared with the calibration data
FEWEST = 20  # samples to say what is usual
_DRAWS = 2000
_AT_ONCE = 100
_TURNS = 4  # looks at every sample
# Beyond the largest distance of any draw: there are 10,000 requests, and more, and all of them are
# as far from these samples as these are from all that there might have been. With 1.25 one of 24
# sets of 200 samples raised an alarm in 10,000 requests; with 1.4 none of 90 did. An index of
# stability grows with the square of a shift.
_MARGINS = Distances(saturation=1.4, psi=2.0, ks=1.4, step_psi=2.0, colour_ks=1.4)
_LEAST = Distances(saturation=0.005, psi=0.05, ks=0.05, step_psi=0.05, colour_ks=0.05)


@dataclass(frozen=True, kw_only=True)
class InputSummary:
    """One input over the calibration data.

    Attributes:
        name: of the input.
        samples: how many were seen.
        min: smallest value of all.
        max: largest value of all.
        grid: where values and steps were counted.
        shares: of each bin; channels one after the other, then steps between neighbours.
        limits: how far requests may be from it; None where the samples were too few to tell.
    """

    name: str
    samples: int
    min: float
    max: float
    grid: Grid
    shares: tuple[float, ...]
    limits: Distances | None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputSummary:
        """From what the manifest stores."""
        limits = None if data["limits"] is None else Distances(**data["limits"])
        grid, shares = Grid(**data["grid"]), tuple(data["shares"])
        return cls(**{**data, "grid": grid, "shares": shares, "limits": limits})

    def distances(self, counts: NDArray[Any]) -> Distances:
        """How far counts of requests are from the calibration data."""
        return distances(
            np.asarray(counts, np.float64), np.asarray(self.shares), self.grid.channels
        )


class Summariser:
    """Sees the samples of one input, each once, then says what they look like."""

    def __init__(self, name: str) -> None:
        """``name`` is the input's."""
        self._name = name
        self._shape: tuple[int, ...] | None = None
        self._places: Places | None = None
        self._low, self._high = math.inf, -math.inf
        self._fits = True
        self._looks: list[NDArray[np.float64]] = []

    def add(self, sample: NDArray[Any]) -> None:
        """Look at a sample, as ``calibrators.Sample.inputs`` has it."""
        axis = channel_axis(sample.shape)
        channels = 1 if axis is None else sample.shape[axis]
        if self._places is None:
            self._shape, self._places = sample.shape, Places(axis, channels)
        if not self._places.fits(sample.shape):
            self._fits = False
            return
        turns = range(len(self._looks) * _TURNS, (len(self._looks) + 1) * _TURNS)
        self._looks.append(
            np.array([self._places.values(sample, turn) for turn in turns], np.float64)
        )
        self._low = min(self._low, float(sample.min()))
        self._high = max(self._high, float(sample.max()))

    def summary(self) -> InputSummary | None:
        """Of all samples; None before the first, and where they do not compare."""
        if self._shape is None or not (self._fits and math.isfinite(self._high - self._low)):
            return None
        grid = grid_for(self._shape, self._low, self._high)
        counter = Counter(grid)
        counts = np.array([[counter.count(v) for v in looks] for looks in self._looks], np.float64)
        shares = shares_of(counts.sum((0, 1))[None]).reshape(-1)
        return InputSummary(
            name=self._name,
            samples=len(counts),
            min=self._low,
            max=self._high,
            grid=grid,
            shares=tuple(round(float(share), 6) for share in shares),
            limits=_limits(counts, grid.channels) if len(counts) >= FEWEST else None,
        )


def _limits(counts: NDArray[np.float64], channels: int) -> Distances:
    """What windows of the calibration data are away from the rest of it, and a margin."""
    samples = len(counts)
    size = min(WINDOW, samples // 2)
    random = np.random.default_rng(0)  # one set of samples has one manifest
    everything = counts.sum(1)
    whole, largest = everything.sum(0), dict.fromkeys(vars(_LEAST), 0.0)
    for _ in range(0, _DRAWS, _AT_ONCE):
        drawn = random.permuted(np.tile(np.arange(samples), (_AT_ONCE, 1)), axis=1)[:, :size]
        windows = counts[drawn, random.integers(0, _TURNS, drawn.shape)].sum(1)
        rest = whole - everything[drawn].sum(1)
        for name, values in measure(windows, shares_of(rest), channels).items():
            largest[name] = max(largest[name], float(values.max()))
    return Distances(
        **{
            name: round(max(least, vars(_MARGINS)[name] * largest[name]), 4)
            for name, least in vars(_LEAST).items()
        }
    )
