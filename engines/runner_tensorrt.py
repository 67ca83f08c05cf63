"""A plan, running on an NVIDIA GPU.

One execution context and one stream a runner; pinned and device buffers that only grow; a CUDA
graph for each of the last few shapes. TensorRT wants one context for each graph (addresses and
shapes are baked in), so a graph owns its context.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import BuilderError, RequestError, UnsupportedError
from engines.buffers import Buffers
from engines.cuda import Cuda
from engines.dlpack import CUDA, BorrowedTensor, DeviceArray, borrow
from engines.graphs import Captured, GraphCache, Shapes
from engines.layer_times import RUNS, WARM_UP, LayerTime, tensorrt_layer_times
from engines.plan import Plan
from engines.profiler_tensorrt import create_profiler
from engines.tensors import TensorSpec, numpy_dtype

__all__ = ["TensorrtRunner"]

logger = logging.getLogger(__name__)


class TensorrtRunner:
    """One execution context on a plan."""

    def __init__(self, plan: Plan) -> None:
        """Make context, stream and buffers.

        Raises:
            UnsupportedError: no memory for a context.
        """
        self._plan = plan
        self._graphs = GraphCache()
        plan.retain()
        with ExitStack() as undo:
            undo.callback(plan.release)
            self._cuda = Cuda(plan.device)
            undo.callback(self._cuda.close)
            with self._cuda.current():
                self._context = plan.create_context()
            undo.pop_all()
        self._buffers = Buffers(self._cuda)

    def adopt(self, value: Any) -> BorrowedTensor | None:
        """A tensor on this GPU as it is; ``None`` for what lies in CPU memory.

        Raises:
            RequestError: it is on another GPU.
        """
        kind, index = value.__dlpack_device__()
        if kind != CUDA:
            return None
        if index != self._plan.device:
            raise RequestError(
                f"tensor is on GPU {index}, expected GPU {self._plan.device}, where the engine "
                "is; move it"
            )
        return borrow(value, self._cuda.stream)

    def run(
        self, arrays: Mapping[str, Any], *, copy: bool, on_device: bool = False
    ) -> dict[str, Any]:
        """Run checked arrays.

        Args:
            arrays: numpy arrays, or GPU tensors that ``adopt`` took; those are given back.
            copy: with ``False`` the outputs are views that the next call overwrites.
            on_device: leave the outputs on the GPU, as DLPack tensors.

        Raises:
            RequestError: the shapes do not fit each other.
            UnsupportedError: the GPU has no memory left, or the execution failed.
        """
        with self._on_device(arrays) as borrowed:
            # A borrowed tensor has another address each time: nothing to bake into a graph.
            if borrowed:
                return self._enqueue(arrays, copy, on_device)
            return self._run_hosted(arrays, copy, on_device)

    def layer_times(self, arrays: Mapping[str, Any]) -> tuple[LayerTime, ...]:
        """Milliseconds of each layer of the plan, on a context of its own that has a profiler.

        Raises:
            RequestError, UnsupportedError: as for ``run``.
        """
        profiler = create_profiler(self._plan.trt)
        with self._on_device(arrays):
            context = self._plan.create_context()
            context.profiler = profiler
            self._bind(context, arrays)
            self._copy_in(arrays)
            for _ in range(WARM_UP + RUNS):
                profiler.start()
                if not context.execute_async_v3(self._cuda.stream):
                    raise self._plan.failure("the execution failed")
                self._cuda.synchronize()
            del context  # before the profiler that it refers to
            return tensorrt_layer_times(self._plan.inspect(), profiler.runs[WARM_UP:])

    def device_times(self, arrays: Mapping[str, Any]) -> dict[str, float]:
        """Copy in, kernels, copy out of one query, between CUDA events in the stream.

        The way ``run`` goes: by a CUDA graph where these shapes have one.

        Raises:
            RequestError, UnsupportedError: as for ``run``.
        """
        with self._on_device(arrays) as borrowed:
            return self._time(arrays, hosted=not borrowed)

    def clone(self) -> TensorrtRunner:
        """Another context on the same plan, for another thread."""
        return TensorrtRunner(self._plan)

    def close(self) -> None:
        """Release graphs, contexts, buffers, the stream and the plan, in this order."""
        with self._cuda.current():
            self._cuda.synchronize()
            self._graphs.drop()
            self._context = None
            self._buffers.free()
        self._cuda.close()
        self._plan.release()

    @contextmanager
    def _on_device(self, arrays: Mapping[str, Any]) -> Iterator[list[BorrowedTensor]]:
        """The context current; at the end the borrowed tensors are given back."""
        borrowed = [a for a in arrays.values() if isinstance(a, BorrowedTensor)]
        try:
            with self._cuda.current():
                yield borrowed
        finally:
            for tensor in borrowed:
                tensor.release()

    def _run_hosted(self, arrays: Mapping[str, Any], copy: bool, on_device: bool) -> dict[str, Any]:
        """Arrays in host memory: a graph where there is one, else enqueue and perhaps capture."""
        shapes = tuple(tuple(array.shape) for array in arrays.values())
        for name, array in arrays.items():
            self._reserve(name, array.nbytes)
        captured = self._graphs.get(shapes)
        if captured is None:
            results = self._enqueue(arrays, copy, on_device)
            hands_over = on_device and copy  # its output buffers change with every call
            if self._graphs.worth_capturing(shapes) and not hands_over:
                self._capture(shapes, arrays)
            return results
        self._copy_in(arrays)
        if not captured.graph.launch():
            self._graphs.drop()
            raise self._plan.failure("a CUDA graph cannot be launched")
        return self._collect(captured.context, copy, on_device)

    def _time(self, arrays: Mapping[str, Any], *, hosted: bool) -> dict[str, float]:
        """One query with an event at each end of its stages; the context is current."""
        shapes = tuple(tuple(array.shape) for array in arrays.values())
        captured = self._graphs.get(shapes) if hosted else None
        if captured is None:
            self._bind(self._context, arrays)
        context = captured.context if captured else self._context
        from_host = {n: a for n, a in arrays.items() if not isinstance(a, BorrowedTensor)}
        for name, array in from_host.items():
            self._buffers.stage(name, array)  # the host's own copy is no transfer
        marks = [self._cuda.mark()]
        for name, array in from_host.items():
            self._buffers.send(name, array.nbytes)
        marks.append(self._cuda.mark())
        stream = self._cuda.stream
        if not (captured.graph.launch() if captured else context.execute_async_v3(stream)):
            raise self._plan.failure("the execution failed")
        marks.append(self._cuda.mark())
        self._copy_out(context)
        marks.append(self._cuda.mark())
        self._cuda.synchronize()
        spans = [self._cuda.between_ms(first, second) for first, second in pairwise(marks)]
        return dict(zip(("h2d_ms", "compute_ms", "d2h_ms"), spans, strict=True))

    def _enqueue(self, arrays: Mapping[str, Any], copy: bool, on_device: bool) -> dict[str, Any]:
        self._bind(self._context, arrays)
        self._copy_in(arrays)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise self._plan.failure("the execution failed")
        return self._collect(self._context, copy, on_device)

    def _copy_in(self, arrays: Mapping[str, Any]) -> None:
        for name, array in arrays.items():
            if not isinstance(array, BorrowedTensor):
                self._buffers.copy_in(name, array)

    def _bind(self, context: Any, arrays: Mapping[str, Any]) -> None:
        """Profile, shapes and addresses of one call."""
        self._choose_profile(context, {name: array.shape for name, array in arrays.items()})
        for name, array in arrays.items():
            if not context.set_input_shape(name, tuple(array.shape)):
                raise RequestError(
                    f"input {name!r} has shape {tuple(array.shape)}, which the plan refuses "
                    f"({self._plan.reasons()}), expected a shape within its profiles; correct it"
                )
            if isinstance(array, BorrowedTensor):
                context.set_tensor_address(name, array.address)
            else:
                self._reserve(name, array.nbytes)
                context.set_tensor_address(name, self._buffers.address(name))
        if missing := context.infer_shapes():
            raise RequestError(
                f"request leaves the shapes of {list(missing)} open, expected all; add inputs"
            )
        for spec in self._plan.outputs:
            self._reserve(spec.name, _bytes(_shape(context, spec), spec))
            context.set_tensor_address(spec.name, self._buffers.address(spec.name))

    def _reserve(self, name: str, size_bytes: int) -> None:
        if self._buffers.reserve(name, size_bytes):
            self._graphs.drop()

    def _choose_profile(self, context: Any, shapes: Mapping[str, Sequence[int]]) -> None:
        """A new context has a profile only if it is the first one of its engine."""
        fitting = (i for i, p in enumerate(self._plan.profiles) if p.contains(shapes))
        index = next(fitting, 0)
        if context.active_optimization_profile != index:
            context.set_optimization_profile_async(index, self._cuda.stream)

    def _collect(self, context: Any, copy: bool, on_device: bool) -> dict[str, Any]:
        if on_device:
            self._cuda.synchronize()
            return {s.name: self._lend(s, _shape(context, s), copy) for s in self._plan.outputs}
        shapes = self._copy_out(context)
        self._cuda.synchronize()
        views: dict[str, NDArray[Any]] = {
            spec.name: self._buffers.view(spec.name, shapes[spec.name], numpy_dtype(spec.dtype))
            for spec in self._plan.outputs
        }
        return {name: view.copy() for name, view in views.items()} if copy else views

    def _copy_out(self, context: Any) -> dict[str, tuple[int, ...]]:
        """All outputs into pinned memory, in the stream; their shapes."""
        shapes = {spec.name: _shape(context, spec) for spec in self._plan.outputs}
        for spec in self._plan.outputs:
            self._buffers.copy_out(spec.name, _bytes(shapes[spec.name], spec))
        return shapes

    def _lend(self, spec: TensorSpec, shape: tuple[int, ...], copy: bool) -> DeviceArray:
        """The output's buffer itself: lent, or handed over (the runner then takes a new one)."""
        device = (CUDA, self._plan.device)
        if not copy:
            return DeviceArray(self._buffers.address(spec.name), shape, spec.dtype, device)
        self._graphs.drop()
        given = self._buffers.hand_over(spec.name)
        return DeviceArray(given.address, shape, spec.dtype, device, given.free)

    def _capture(self, shapes: Shapes, arrays: Mapping[str, Any]) -> None:
        """Record a shape. Without success the runner goes on without graphs."""
        try:
            context = self._plan.create_context()
            self._bind(context, arrays)
        except BuilderError as err:
            logger.info("no CUDA graphs: %s", err)
            self._graphs.enabled = False
            return
        # TensorRT finishes deferred work in the first enqueue, which must not be recorded.
        warmed = context.execute_async_v3(self._cuda.stream)
        self._cuda.synchronize()
        graph = None
        if warmed:
            graph = self._cuda.capture(lambda: bool(context.execute_async_v3(self._cuda.stream)))
        if graph is None:
            logger.info("no CUDA graphs: the plan cannot be captured: %s", self._plan.reasons())
            self._graphs.enabled = False
            return
        self._graphs.add(shapes, Captured(graph, context))


def _shape(context: Any, spec: TensorSpec) -> tuple[int, ...]:
    shape = tuple(context.get_tensor_shape(spec.name))
    if any(size < 0 for size in shape):
        raise UnsupportedError(
            f"output {spec.name!r} has shape {shape}, which depends on the data, expected shapes "
            "that follow from the inputs; end the model before that node"
        )
    return shape


def _bytes(shape: tuple[int, ...], spec: TensorSpec) -> int:
    return int(np.prod(shape, dtype=np.int64)) * numpy_dtype(spec.dtype).itemsize
