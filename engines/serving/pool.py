"""A fixed number of engines on the same weights, lent to threads one request at a time."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from artefacts.errors import BusyError, InputError, NotFiniteError
from engines.engine import Engine
from engines.monitoring.drift import InputDrift
from engines.serving import refusals
from engines.serving.metrics import Family, families
from engines.serving.pool_statistics import PoolStatistics
from engines.serving.replacement import load_copies, load_replacement, retire
from engines.serving.shadow import Shadow

__all__ = ["EnginePool", "PoolStatistics"]

Request = Mapping[str, Any] | Callable[[float | None], Mapping[str, Any]]


class EnginePool:
    """Engines for a service's threads.

        with EnginePool("model.engine", size=4) as pool:
            scores = pool({"input": images}, timeout_s=0.5)["output"]

    Waiting is first come, first served. At most ``max_waiting`` requests wait; the next one is
    turned away at once, so that a service sheds load instead of collapsing under it.

    Args:
        path: the engine; verified and loaded once, then cloned.
        size: how many requests run at the same time.
        max_waiting: how many more may wait; None for eight for each engine.
        load_options: for ``engines.load``: ``device``, ``threads``, ``trusted_key``, ``expected``,
            ``check_inputs``, ``record``, ``drift``.

    Raises:
        EngineError: the engine cannot be loaded.
        InputError: a size that makes no sense.
    """

    def __init__(
        self,
        path: str | Path,
        size: int,
        *,
        max_waiting: int | None = None,
        **load_options: Any,
    ) -> None:
        refusals.check_sizes(size, max_waiting)
        self._process = os.getpid()
        self._max_waiting = 8 * size if max_waiting is None else max_waiting
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._counts = dict.fromkeys(("served", "failed", "rejected", "timed_out"), 0)
        self._failed_in_row = self._not_finite = 0
        self._wait_s = self._run_s = 0.0
        self._closed = False
        self._borrowers: dict[Engine, int] = {}
        self._options = load_options
        self._replacing = threading.Lock()
        self.shadow: Shadow | None = None
        self._engines = load_copies(path, size, load_options)
        self._free = list(self._engines)
        self.manifest = self._engines[0].manifest

    def __call__(
        self, request: Request, *, timeout_s: float | None = None
    ) -> dict[str, NDArray[Any]]:
        """Run one request on the next free engine.

        Args:
            request: as for ``Engine``; or a function that makes it, called with the deadline (on
                ``time.monotonic``'s clock, or None) once an engine is free. Decoding an upload is
                work, too, and so many at a time do it as there are engines.
            timeout_s: time for waiting and running together; None for no limit. A run cannot be
                stopped: one that ends too late is counted as timed out and its result dropped.

        Raises:
            RequestError: the arrays do not fit.
            ClosedError: the pool is closed or was inherited by fork.
            BusyError: too many wait already, or the time was up.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self.borrow(timeout_s=timeout_s) as engine:
            arrays = request(deadline_s) if callable(request) else request
            start = time.monotonic()
            if not _is_up(deadline_s):
                outputs = engine(arrays)
            if _is_up(deadline_s):
                raise refusals.request_late(timeout_s, "running")
            run_s = time.monotonic() - start
        if (shadow := self.shadow) is not None:
            shadow.offer(arrays, outputs, run_s)
        return outputs

    @contextmanager
    def borrow(self, *, timeout_s: float | None = None) -> Iterator[Engine]:
        """Lend an engine for the body of a ``with``; never keep it beyond, nor close it.

        Args:
            timeout_s: longest time to wait for one; None for no limit.

        Raises:
            ClosedError, BusyError: as for a call.
        """
        engine = self._take(timeout_s)
        start, outcome, in_row = time.monotonic(), "failed", 1
        try:
            yield engine
            outcome = "served"
        except BusyError:
            outcome, in_row = "timed_out", 0
            raise
        except InputError as err:  # the request's own fault
            in_row = 0
            self._not_finite += isinstance(err, NotFiniteError)
            raise
        finally:
            with self._changed:
                self._run_s += time.monotonic() - start
                self._counts[outcome] += 1
                self._failed_in_row = 0 if outcome == "served" else self._failed_in_row + in_row
                del self._borrowers[engine]
                stays = engine in self._engines
                if stays:
                    self._free.append(engine)
                self._changed.notify_all()
            if not stays:  # replaced meanwhile
                retire(engine)

    def statistics(self) -> PoolStatistics:
        """Counters and the present load."""
        with self._changed:
            return PoolStatistics(
                size=len(self._engines),
                in_use=len(self._borrowers),
                waiting=len(self._queue),
                failed_in_row=self._failed_in_row,
                not_finite=self._not_finite,
                wait_s=self._wait_s,
                run_s=self._run_s,
                **self._counts,
            )

    def warm_up(self, calls: int = 3) -> None:
        """Warm every engine; before the service says that it is ready."""
        for engine in self._engines:
            engine.warm_up(calls)

    def drift(self) -> dict[str, InputDrift]:
        """As for an engine: its copies watch together, since it was loaded or replaced.

        Raises:
            RequestError: the pool was made without ``drift=True``.
        """
        return self._engines[0].drift()

    def metrics(self) -> tuple[Family, ...]:
        """All of it for Prometheus: ``engines.prometheus_text`` writes it down."""
        return families(
            self.statistics(),
            self.manifest.engine_sha256,
            drift=None if self._engines[0].watch is None else self.drift(),
            recorder=self._options.get("record"),
            shadow=self.shadow,
        )

    def start_shadow(self, path: str | Path, *, share: float = 0.1) -> Shadow:
        """Let another engine answer a share of the requests, too, only to be compared.

        It takes the place of an earlier shadow; ``replace`` and ``close`` end it.

        Raises:
            EngineError: it cannot be loaded, or requests do not fit it; nothing has changed.
            InputError: a share that makes no sense.
            ClosedError: the pool is closed or was inherited by fork.
        """
        self._check_process()
        with self._replacing:
            shadow = Shadow(path, share, self._options, self.manifest)
            self._exchange_shadow(shadow)
        self._check_open()
        return shadow

    def stop_shadow(self) -> None:
        """End the comparison; its ``statistics()`` stay readable."""
        with self._replacing:
            self._exchange_shadow(None)

    def replace(self, path: str | Path) -> None:
        """Let another engine answer from now on; no request is lost, none waits for its loading.

        Until it is warm, and as long as requests run on the old one, memory holds both. Going back
        is replacing it by the old file. A shadow ends: what it was compared with is gone.

        Raises:
            EngineError: it cannot be loaded, or requests do not fit it; the old one goes on.
            ClosedError: the pool is closed or was inherited by fork.
        """
        self._check_process()
        with self._replacing:
            copies = load_replacement(path, len(self._engines), self._options, self.manifest)
            with self._changed:
                gone, copies = (copies, []) if self._closed else (self._free, copies)
                if copies:
                    self._engines, self._free = copies, list(copies)
                    self.manifest = copies[0].manifest
                    self._changed.notify_all()
            for engine in gone:
                retire(engine)
            self._exchange_shadow(None)
        self._check_open()

    def close(self) -> None:
        """Turn new requests away, wait for those that run, release every engine.

        Raises:
            InputError: this thread itself has borrowed an engine and would wait for itself.
        """
        if self._process == os.getpid():
            with self._changed:
                if threading.get_ident() in self._borrowers.values():
                    raise InputError(
                        "engine pool is closed by a thread that has borrowed one of its engines, "
                        "expected the engine given back first; close it after the with block"
                    )
                self._closed = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._borrowers)
            self.stop_shadow()
        for engine in self._engines:
            retire(engine)

    def __enter__(self) -> EnginePool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _exchange_shadow(self, shadow: Shadow | None) -> None:
        with self._changed:
            gone = [self.shadow, shadow if self._closed else None]
            self.shadow = None if self._closed else shadow
        for each in filter(None, gone):
            each.close()

    def _take(self, timeout_s: float | None) -> Engine:
        self._check_process()
        ticket, start = object(), time.monotonic()
        with self._changed:
            self._check_open()
            if not self._free and len(self._queue) >= self._max_waiting:
                self._counts["rejected"] += 1
                raise refusals.pool_full(len(self._engines), len(self._queue), self._max_waiting)
            self._queue.append(ticket)
            try:
                ready = self._changed.wait_for(
                    lambda: self._closed or (self._queue[0] is ticket and bool(self._free)),
                    timeout_s,
                )
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
            self._wait_s += time.monotonic() - start
            self._check_open()
            if not ready:
                self._counts["timed_out"] += 1
                raise refusals.request_late(timeout_s, "waiting")
            engine = self._free.pop()
            self._borrowers[engine] = threading.get_ident()
            return engine

    def _check_open(self) -> None:
        if self._closed:
            raise refusals.pool_closed()

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise refusals.pool_inherited(self._process)


def _is_up(deadline_s: float | None) -> bool:
    return deadline_s is not None and time.monotonic() > deadline_s
