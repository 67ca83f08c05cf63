"""A loaded engine: called with arrays, returns arrays, whatever runs it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from math import prod
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np

from artefacts.errors import ClosedError, RequestError, UnsupportedError
from engines.dlpack import BorrowedTensor
from engines.layer_times import LayerTime
from engines.manifest import Manifest
from engines.monitoring.drift import InputDrift, Watch
from engines.requests import RequestCheck
from engines.tensors import TensorSpec, numpy_dtype

__all__ = ["Engine", "Runner"]

Found = TypeVar("Found")


class Runner(Protocol):
    """What a runtime must offer; one file per runtime has one."""

    def adopt(self, value: Any) -> BorrowedTensor | None:
        """A DLPack tensor on the runner's device; ``None`` for one in CPU memory."""
        ...

    def run(self, arrays: Mapping[str, Any], *, copy: bool, on_device: bool) -> dict[str, Any]:
        """Run checked arrays; outputs by name."""
        ...

    def layer_times(self, arrays: Mapping[str, Any]) -> tuple[LayerTime, ...]:
        """Milliseconds of each kernel for checked arrays, by the runtime's profiler."""
        ...

    def device_times(self, arrays: Mapping[str, Any]) -> dict[str, float]:
        """Milliseconds of copies and kernels for checked arrays, by events on the device."""
        ...

    def clone(self) -> Runner:
        """Another runner on the same weights."""
        ...

    def close(self) -> None:
        """Release everything; nothing is called afterwards."""
        ...


# Runners that a forked child inherited: kept alive, because releasing them there would touch
# threads and device handles that only exist in the parent.
_INHERITED: list[Runner] = []


class Engine:
    """An engine that was verified and loaded.

        with engines.load("model.engine") as engine:
            scores = engine({"input": images})["output"]

    Calls from several threads are safe and run one after the other; ``clone`` gives each
    thread its own.
    """

    def __init__(self, runner: Runner, manifest: Manifest, *, check_inputs: bool = False) -> None:
        """``engines.load`` makes engines."""
        self._runner: Runner | None = runner
        self._check = RequestCheck(
            manifest.inputs, manifest.profiles, runner.adopt, finite=check_inputs
        )
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._proven: dict[str, Any] | None = None
        self.manifest = manifest
        self.pooled = False  # then its pool closes it, and no borrower
        self.observers: tuple[Callable[[Mapping[str, Any]], None], ...] = ()
        self.watch: Watch | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Names, dtypes and shapes that a request must have."""
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Names, dtypes and shapes of what a call returns."""
        return self.manifest.outputs

    @property
    def preprocess(self) -> Mapping[str, Any] | None:
        """How raw samples become inputs, as the manifest has it."""
        return self.manifest.passport.preprocess

    def __call__(
        self, request: Mapping[str, Any], *, copy: bool = True, on_device: bool = False
    ) -> dict[str, Any]:
        """Run one request, e.g. ``{"input": (8, 3, 224, 224) float32}``.

        Args:
            request: a numpy array or DLPack tensor for every input; a tensor on the engine's
                GPU is used where it lies.
            copy: with ``False`` the outputs are views that the next call overwrites.
            on_device: outputs stay on the GPU, as DLPack tensors. On the cpu target they are
                numpy arrays, which are DLPack tensors too.

        Raises:
            RequestError: the arrays do not fit.
            ClosedError: the engine is closed or was inherited by fork.
            UnsupportedError: memory is exhausted, the device failed, or the engine fails on what
                it was warmed up with, too.
        """
        self._check_process()
        try:
            with self._lock:
                runner = self._open_runner()
                arrays = self._check(request)
                try:
                    outputs = runner.run(arrays, copy=copy, on_device=on_device)
                except RequestError as err:
                    self._check_works(runner, err)
                    raise
                for observe in self.observers:
                    observe(arrays)
                return outputs
        except MemoryError as err:
            raise _exhausted(err) from err

    def layer_times(self, request: Mapping[str, Any]) -> tuple[LayerTime, ...]:
        """Where the time of a request goes: milliseconds of each kernel that the runtime runs.

        The runtime's profiler, on a model or context of its own, made and dropped here: the
        engine itself runs as fast as before.

        Raises:
            EngineError: the engine's file is no longer the one that was loaded.
            RequestError, UnsupportedError: as for a call.
        """
        times = self._profile(request, lambda runner, arrays: runner.layer_times(arrays))
        coverage = self.manifest.coverage
        named = {name for time in times for name in time.nodes}
        names: dict[str, str] = {}
        for node in coverage.nodes if coverage is not None else ():
            if node.name not in named:  # else its aliases are kernels of their own
                for alias in node.aliases:
                    names.setdefault(alias, node.name)
        return tuple(time.renamed(names) for time in times)

    def device_times(self, request: Mapping[str, Any]) -> dict[str, float]:
        """``h2d_ms``, ``compute_ms`` and ``d2h_ms`` of one request, by events on the GPU.

        The definitions are trtexec's: copies in, kernels, copies out; queueing is in none.

        Raises:
            RequestError: as for a call.
            UnsupportedError: as for a call, and for the cpu target.
        """
        return self._profile(request, lambda runner, arrays: runner.device_times(arrays))

    def drift(self) -> dict[str, InputDrift]:
        """How far the last 50 requests are from the calibration data, by input.

        Raises:
            RequestError: the engine was loaded without ``drift=True``.
        """
        if self.watch is None:
            raise RequestError(
                "engine does not watch its requests, expected one that does; load it with "
                "engines.load(path, drift=True)"
            )
        return self.watch.drift()

    def warm_up(self, calls: int = 3) -> None:
        """Run zeros of every shape that a profile names; without profiles, of the smallest.

        First calls allocate, choose kernels and, the second time that a shape comes, capture a
        graph; a service does that before it says that it is ready. The largest shapes come first,
        so that what is captured later stays valid.
        """
        smallest = {s.name: tuple(d or 1 for d in s.shape) for s in self.inputs}
        shapes = [
            {**smallest, **which}
            for profile in self.manifest.profiles
            for which in (profile.max, profile.opt, profile.min)
        ] or [smallest]
        shapes.sort(key=lambda chosen: sum(map(prod, chosen.values())), reverse=True)
        distinct = list({tuple(chosen.items()): chosen for chosen in shapes}.values())
        observers, self.observers = self.observers, ()  # zeros are no requests
        try:
            self._run_zeros(distinct, calls)
        finally:
            self.observers = observers

    def _run_zeros(self, shapes: list[dict[str, Any]], calls: int) -> None:
        for _ in range(calls):
            for chosen in shapes:
                dtypes = {spec.name: numpy_dtype(spec.dtype) for spec in self.inputs}
                zeros = {name: np.zeros(chosen[name], dtype) for name, dtype in dtypes.items()}
                self(zeros)
                self._proven = zeros  # the smallest is the last

    def clone(self) -> Engine:
        """An engine for another thread on the same weights; close each by itself."""
        self._check_process()
        with self._lock:
            runner = self._open_runner().clone()
        clone = Engine(runner, self.manifest, check_inputs=self._check.finite)
        clone.observers, clone.watch = self.observers, self.watch
        return clone

    def close(self) -> None:
        """Release the runtime's memory; a second call does nothing.

        Raises:
            RequestError: a pool has lent the engine and will lend it again.
        """
        if self.pooled:
            raise RequestError(
                "engine is closed by a borrower, expected it open when it goes back to its pool; "
                "leave closing to the pool"
            )
        if self._process != os.getpid():
            # The lock may have been held by a thread that the fork did not copy.
            if self._runner is not None:
                _INHERITED.append(self._runner)
            self._runner = None
            return
        with self._lock:
            runner, self._runner = self._runner, None
            if runner is not None:
                runner.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _profile(
        self, request: Mapping[str, Any], measure: Callable[[Runner, dict[str, Any]], Found]
    ) -> Found:
        self._check_process()
        try:
            with self._lock:
                runner = self._open_runner()
                return measure(runner, self._check(request))
        except MemoryError as err:
            raise _exhausted(err) from err

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise ClosedError(
                f"engine was loaded in process {self._process} and called in {os.getpid()}, its "
                "fork, expected one process; load the engine in the process that uses it"
            )

    def _check_works(self, runner: Runner, err: RequestError) -> None:
        """Whose fault a failure is: the request's, or that of an engine which fails on zeros, too.

        Raises:
            UnsupportedError: the engine fails on what it once ran.
        """
        if self._proven is None:
            return
        try:
            runner.run(self._proven, copy=False, on_device=False)
        except RequestError as again:
            raise UnsupportedError(
                f"engine fails on any request, also on the zeros that it was warmed up with "
                f"({again}), expected it to run; load it again"
            ) from err

    def _open_runner(self) -> Runner:
        if self._runner is None:
            raise ClosedError("engine is closed, expected an open one; load it again")
        return self._runner


def _exhausted(err: MemoryError) -> UnsupportedError:
    return UnsupportedError(
        f"memory is exhausted ({err or 'no more is said'}), expected room for the request "
        "and its outputs; use a smaller batch"
    )
