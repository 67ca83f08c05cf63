"""Whether the last requests still look like the calibration data, input by input."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import EngineError
from engines.monitoring.distance import Distances
from engines.monitoring.grid import Counter
from engines.monitoring.places import PAIRS, Places
from engines.monitoring.rows import axes_of, row_of
from engines.monitoring.summary import WINDOW, InputSummary
from engines.passport import Passport

__all__ = ["InputDrift", "Watch"]


@dataclass(frozen=True, kw_only=True)
class InputDrift:
    """One input of the last requests against the calibration data.

    Attributes:
        name: of the input.
        requests: how many of the last 50 were seen.
        distances: of them from the calibration data; None before the first.
        limits: what is usual of 50; None where the calibration samples were too few to tell.
        verdict: ``moved`` where a distance is beyond its limit, ``usual`` where none is;
            ``unknown`` before the 50th request and without limits.
    """

    name: str
    requests: int
    distances: Distances | None
    limits: Distances | None
    verdict: Literal["usual", "moved", "unknown"]

    @property
    def beyond(self) -> tuple[str, ...]:
        """Names of the distances beyond their limits."""
        if self.distances is None or self.limits is None:
            return ()
        limits = vars(self.limits)
        return tuple(n for n, found in vars(self.distances).items() if found > limits[n])

    def __str__(self) -> str:
        if self.distances is None:
            return f"input {self.name}: no requests yet"
        if self.limits is None:
            return f"input {self.name}: too few calibration samples to tell what is usual"
        if self.verdict == "unknown":
            return f"input {self.name}: {self.requests} requests, a verdict needs {WINDOW}"
        found, limits = vars(self.distances), vars(self.limits)
        parts = [f"{n} {found[n]:.3g} (usual: up to {limits[n]:.3g})" for n in self.beyond]
        return f"input {self.name}: {self.verdict}{', ' if parts else ''}{', '.join(parts)}"


class Watch:
    """Counts some values of every request; engines of one file share one, from any thread."""

    def __init__(self, passport: Passport) -> None:
        """The passport has the calibration data.

        Raises:
            EngineError: it has none.
        """
        if not passport.inputs:
            raise EngineError(
                "engine has no summary of its inputs in the manifest, expected one to watch for "
                "drift; build it from calibration samples (--calib-data), or load it without drift"
            )
        self._axes = axes_of(passport)
        self._inputs = tuple(_Window(summary) for summary in passport.inputs)
        self._guard = threading.Lock()
        self._turn = 0

    def observe(self, arrays: Mapping[str, Any]) -> None:
        """Hear of an answered request; of a batch one sample counts, on a GPU none."""
        with self._guard:
            row = row_of(arrays, self._axes, self._turn * 7919)
            if row is None:
                return
            for window in self._inputs:
                window.add(row[window.summary.name])
            self._turn += 1

    def drift(self) -> dict[str, InputDrift]:
        """By input, of the last 50 requests; requests wait while values are copied, no longer."""
        with self._guard:
            taken = [window.taken() for window in self._inputs]
        found = map(_Window.judged, self._inputs, taken)
        return {drift.name: drift for drift in found}


class _Window:
    """Values of the last requests of one input: a request pays for taking them, not for counts."""

    def __init__(self, summary: InputSummary) -> None:
        grid = summary.grid
        self.summary = summary
        self._places = Places(grid.channel_axis, grid.channels)
        self._counter = Counter(grid)
        self._values = np.zeros((WINDOW, 2, grid.channels, PAIRS))
        self._requests = 0

    def add(self, sample: NDArray[Any]) -> None:
        if not self._places.fits(sample.shape):  # a free axis that calibration data had 3 along
            return
        taken = self._places.values(sample, self._requests)
        self._values[self._requests % WINDOW] = taken
        self._requests += 1

    def taken(self) -> tuple[NDArray[np.float64], ...]:
        """A copy of the values of each request, in no order."""
        return tuple(self._values[: min(self._requests, WINDOW)].copy())

    def judged(self, taken: tuple[NDArray[np.float64], ...]) -> InputDrift:
        summary, seen = self.summary, len(taken)
        # All requests side by side: one count of the window, however many there are.
        counts = self._counter.count(np.concatenate(taken, axis=-1)) if seen else None
        found = None if counts is None else summary.distances(counts)
        drift = InputDrift(
            name=summary.name,
            requests=seen,
            distances=found,
            limits=summary.limits,
            verdict="unknown",
        )
        if seen < WINDOW or summary.limits is None:
            return drift
        return replace(drift, verdict="moved" if drift.beyond else "usual")
