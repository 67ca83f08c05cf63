"""Another engine beside a pool: it answers a share of the requests, too, and nobody waits for it.

What a request pays is a random number; one that is drawn has its inputs and outputs copied. A
thread of its own runs the other engine. Where it cannot follow, requests are dropped and counted.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import BuilderError, InputError
from engines.manifest import Manifest
from engines.serving.agreement import Agreement, OutputAgreement
from engines.serving.replacement import load_replacement, retire

__all__ = ["Shadow", "ShadowStatistics"]

Arrays = dict[str, NDArray[Any]]
_MOST_WAITING = 8  # requests in memory
_LATENCIES = 1000  # the last so many
_OF_REQUESTS = ("record", "drift")  # options for engines that answer requests


@dataclass(frozen=True, kw_only=True)
class ShadowStatistics:
    """The serving engine and its shadow on the same requests. Counters only grow.

    Attributes:
        sha256: of the shadow engine's file.
        share: of the requests, that is drawn.
        drawn: requests that the share chose.
        compared: requests that both have answered.
        dropped: requests lost because the shadow could not follow, or memory was short.
        failed: requests that the shadow refused or could not run.
        error: what it last said of that; empty for nothing.
        outputs: how far answers agree.
        serving_p50_ms: median time of the serving engine, of the last 1,000 compared; None before.
        serving_p99_ms: 99th percentile of it.
        shadow_p50_ms: median time of the shadow, on the same requests.
        shadow_p99_ms: 99th percentile of it.
    """

    sha256: str
    share: float
    drawn: int
    compared: int
    dropped: int
    failed: int
    error: str
    outputs: tuple[OutputAgreement, ...]
    serving_p50_ms: float | None
    serving_p99_ms: float | None
    shadow_p50_ms: float | None
    shadow_p99_ms: float | None


class Shadow:
    """Runs another engine on a share of a pool's requests; ``EnginePool.start_shadow`` makes one.

    Args:
        path: the other engine.
        share: of the requests; above 0, at most 1.
        options: for ``engines.load``; it is never recorded or watched for drift.
        serving: manifest of the engine that answers.

    Raises:
        EngineError: it cannot be loaded, or requests do not fit it.
        InputError: a share that makes no sense.
    """

    def __init__(
        self, path: str | Path, share: float, options: Mapping[str, Any], serving: Manifest
    ) -> None:
        if not 0 < share <= 1:
            raise InputError(
                f"shadow has share {share}, expected one above 0 and at most 1; correct it"
            )
        own = {name: value for name, value in options.items() if name not in _OF_REQUESTS}
        (self._engine,) = load_replacement(path, 1, own, serving)
        self._share = share
        self._agreement = Agreement([spec.name for spec in self._engine.outputs])
        self._times_s: deque[tuple[float, float]] = deque(maxlen=_LATENCIES)
        self._waiting: queue.Queue[tuple[Arrays, Arrays, float] | None]
        self._waiting = queue.Queue(_MOST_WAITING)
        self._guard = threading.Lock()
        self._drawn = self._compared = self._dropped = self._failed = 0
        self._error = ""
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def offer(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, NDArray[Any]], run_s: float
    ) -> None:
        """Hear of an answered request; those with tensors on a GPU are passed over."""
        if self._closed or random.random() >= self._share:
            return
        if not all(isinstance(array, np.ndarray) for array in inputs.values()):
            return
        with self._guard:
            self._drawn += 1
        if self._waiting.full():  # before anything is copied
            self._drop()
            return
        try:
            self._waiting.put_nowait((_copied(inputs), _copied(outputs), run_s))
        except (queue.Full, MemoryError):
            self._drop()

    def statistics(self) -> ShadowStatistics:
        """Counters, and the agreement so far."""
        with self._guard:
            p50_ms, p99_ms = _percentiles_ms(list(self._times_s))
            return ShadowStatistics(
                sha256=self._engine.manifest.engine_sha256,
                share=self._share,
                drawn=self._drawn,
                compared=self._compared,
                dropped=self._dropped,
                failed=self._failed,
                error=self._error,
                outputs=self._agreement.report(),
                serving_p50_ms=p50_ms[0],
                serving_p99_ms=p99_ms[0],
                shadow_p50_ms=p50_ms[1],
                shadow_p99_ms=p99_ms[1],
            )

    def close(self) -> None:
        """End it; what waits is not run."""
        self._closed = True
        self._waiting.put(None)
        self._thread.join()
        retire(self._engine)

    def _drop(self) -> None:
        with self._guard:
            self._dropped += 1

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            if not self._closed:
                self._compare(*item)

    def _compare(self, inputs: Arrays, served: Arrays, run_s: float) -> None:
        try:
            start = time.monotonic()
            found = self._engine(inputs)
            own_s = time.monotonic() - start
            with self._guard:
                self._agreement.add(served, found)
                self._times_s.append((run_s, own_s))
                self._compared += 1
        except (BuilderError, MemoryError) as err:
            with self._guard:
                self._failed += 1
                self._error = str(err)


def _copied(arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """The caller may change them."""
    return {name: array.copy() for name, array in arrays.items()}


def _percentiles_ms(times_s: Sequence[tuple[float, float]]) -> list[list[float | None]]:
    """Median and 99th percentile, each of the serving engine and of the shadow."""
    if not times_s:
        return [[None, None], [None, None]]
    found: list[list[float | None]] = np.percentile(1000 * np.array(times_s), (50, 99), 0).tolist()
    return found
