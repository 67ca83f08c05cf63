"""A compiled blob, running on this CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import RequestError, UnsupportedError
from engines.layer_times import RUNS, WARM_UP, LayerTime, openvino_layer_times
from engines.openvino.engine_files import load_bytes
from engines.openvino.library import (
    executed_nodes,
    openvino,
    port_index,
    reason,
    settings,
)
from engines.tensors import TensorSpec

__all__ = ["OpenvinoRunner"]

NO_MEMORY = "Failed to allocate"


class OpenvinoRunner:
    """One infer request on an imported blob."""

    def __init__(
        self,
        compiled: Any,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        profiled: Callable[[], Any],
    ) -> None:
        """Take a compiled model; ``load`` makes one from bytes.

        ``profiled`` compiles the same blob again, with OpenVINO's profiler on.
        """
        self._compiled = compiled
        self._profiled = profiled
        self._make_tensor = openvino().Tensor
        # A tensor on shared memory does not keep its array alive.
        self._held: list[NDArray[Any]] = []
        self._ran: list[tuple[int, ...]] = []
        self._dynamic = any(None in spec.shape for spec in inputs)
        self._specs = (tuple(inputs), tuple(outputs))
        self._request = compiled.create_infer_request()
        self._inputs = {s.name: port_index(compiled.inputs, s.name) for s in inputs}
        self._outputs = [(s.name, port_index(compiled.outputs, s.name)) for s in outputs]

    @classmethod
    def load(
        cls,
        data: bytes,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        threads: int | None,
        precision: str,
        reread: Callable[[], bytes],
    ) -> OpenvinoRunner:
        """Load bytes whose hash was checked.

        Args:
            data: a blob, or a network that is compiled now.
            inputs: of the manifest.
            outputs: of the manifest.
            threads: None leaves it to OpenVINO.
            precision: of floating-point layers.
            reread: the same bytes again, for the profiler: kept, they would double the memory.

        Raises:
            EngineError: OpenVINO refuses the bytes.
        """
        chosen = settings(threads, precision)

        def profiled() -> Any:
            return load_bytes(reread(), chosen | {"PERF_COUNT": True})

        return cls(load_bytes(data, chosen), inputs, outputs, profiled)

    def adopt(self, value: Any) -> None:
        """Nothing: numpy reads CPU tensors itself."""

    def run(
        self, arrays: Mapping[str, NDArray[Any]], *, copy: bool, on_device: bool = True
    ) -> dict[str, NDArray[Any]]:
        """Infer checked arrays. Without ``copy`` the next call overwrites what is returned."""
        request = self._request
        try:
            # Tensors by hand: handing ``infer`` a mapping costs several times as much.
            self._held = [_writeable(array) for array in arrays.values()]
            for name, array in zip(arrays, self._held, strict=True):
                tensor = self._make_tensor(array, shared_memory=True)
                request.set_input_tensor(self._inputs[name], tensor)
            self._infer()
        except RuntimeError as err:
            if NO_MEMORY in str(err):
                self._settle()
                raise MemoryError(next(x for x in str(err).splitlines() if NO_MEMORY in x)) from err
            raise RequestError(
                f"request fails in OpenVINO ({reason(err)}), expected shapes that fit each "
                "other; correct the arrays"
            ) from err
        views = {name: request.get_output_tensor(port).data for name, port in self._outputs}
        return {name: np.array(view) for name, view in views.items()} if copy else views

    def _infer(self) -> None:
        """Infer what was set.

        OpenVINO 2026.4.1 swallows in ``infer`` that memory for new shapes is not there: the outputs
        are those of the call before. ``wait`` tells, and takes some 40 µs more; where all shapes
        are fixed nothing is allocated.
        """
        if not self._dynamic:
            self._request.infer({}, share_outputs=True)
            return
        self._request.start_async()
        self._request.wait()
        self._ran = [array.shape for array in self._held]

    def _settle(self) -> None:
        """After a failed allocation: run shapes a little larger than those that ran last.

        OpenVINO prepares nodes only whose shapes are not those that ran last, and leaves the
        others as they were when memory ran out: what ran before would fail from then on. Where
        these shapes do not fit each other, it still does, and says so.
        """
        for spec, shape, held in zip(self._specs[0], self._ran, self._held, strict=False):
            free = [want is None for want in spec.shape]
            zeros = np.zeros(np.add(shape, free), held.dtype)
            self._request.set_input_tensor(self._inputs[spec.name], self._make_tensor(zeros))
        with suppress(RuntimeError):
            self._request.start_async()
            self._request.wait()

    def clone(self) -> OpenvinoRunner:
        """Another infer request on the same compiled model, for another thread."""
        return OpenvinoRunner(self._compiled, *self._specs, self._profiled)

    def layer_times(self, arrays: Mapping[str, NDArray[Any]]) -> tuple[LayerTime, ...]:
        """Milliseconds of each kernel, on a model of its own that counts.

        Raises:
            EngineError: the engine's file is no longer the one that was loaded.
        """
        runner = OpenvinoRunner(self._profiled(), *self._specs, self._profiled)
        done = openvino().ProfilingInfo.Status.EXECUTED
        runs = []
        for _ in range(WARM_UP + RUNS):
            runner.run(arrays, copy=False)
            runs.append(
                [
                    (info.node_name, info.real_time.total_seconds() * 1e3)
                    for info in runner._request.profiling_info
                    if info.status == done
                ]
            )
        found = openvino_layer_times(executed_nodes(runner._compiled), runs[WARM_UP:])
        runner.close()
        return found

    def device_times(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """Nothing to copy to: there is no device.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            "engine runs on the CPU and has no device times, expected an engine for a GPU; "
            "measure the latency of its calls"
        )

    def close(self) -> None:
        """Drop the request and the model; memory goes with the last request of a model."""
        self._request = self._compiled = None
        self._held = []


def _writeable(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself, or a copy of a read-only one: OpenVINO shares writable memory only."""
    return array if array.flags.writeable else array.copy()
