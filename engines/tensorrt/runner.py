"""A plan, running on an NVIDIA GPU.

One stream a runner; pinned and device buffers that only grow; a CUDA graph for each of a few
shapes. TensorRT wants one execution context for each graph (addresses and shapes are baked in), so
a graph owns its context; all contexts of a runner share one block of memory for activations, since
they run one after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from artefacts.cuda import every_step
from artefacts.errors import BuilderError, RequestError
from engines.cuda.buffers import Buffers
from engines.cuda.driver import Cuda
from engines.dlpack import CUDA, BorrowedTensor, DeviceArray, borrow
from engines.layer_times import RUNS, WARM_UP, LayerTime, tensorrt_layer_times
from engines.tensorrt.execution_context import Execution, size_bytes
from engines.tensorrt.graph_cache import Captured, GraphCache, Shapes
from engines.tensorrt.plan import Plan
from engines.tensorrt.profiler import create_profiler
from engines.tensors import TensorSpec, numpy_dtype

__all__ = ["TensorrtRunner"]

logger = logging.getLogger(__name__)


class TensorrtRunner:
    """One stream on a plan, and what runs in it."""

    def __init__(self, plan: Plan) -> None:
        """Make stream, execution context and buffers.

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
            self._buffers = Buffers(self._cuda, before_move=self._graphs.drop)
            with self._cuda.current():
                self._scratch = self._cuda.buffer(plan.scratch_bytes)
                self._execution = self._new_execution()
            undo.pop_all()

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
                return self._run_bound(arrays, copy, on_device)
            return self._run_hosted(arrays, copy, on_device)

    def layer_times(self, arrays: Mapping[str, Any]) -> tuple[LayerTime, ...]:
        """Milliseconds of each layer of the plan, on a context of its own that has a profiler.

        Raises:
            RequestError, UnsupportedError: as for ``run``.
        """
        profiler = create_profiler(self._plan.trt)
        with self._on_device(arrays):
            execution = self._new_execution()
            execution.context.profiler = profiler
            execution.bind(arrays)
            execution.copy_in(arrays)
            for _ in range(WARM_UP + RUNS):
                profiler.start()
                execution.run()
                self._cuda.synchronize()
            inspected = self._plan.inspect(execution.context)
            del execution  # before the profiler that it refers to
            return tensorrt_layer_times(inspected, profiler.runs[WARM_UP:])

    def device_times(self, arrays: Mapping[str, Any]) -> dict[str, float]:
        """Copy in, kernels, copy out of one query, between CUDA events in the stream.

        The way ``run`` goes: by a CUDA graph where these shapes have one.

        Raises:
            RequestError, UnsupportedError: as for ``run``.
        """
        with self._on_device(arrays) as borrowed:
            return self._time(arrays, hosted=not borrowed)

    def clone(self) -> TensorrtRunner:
        """Another stream on the same plan, for another thread."""
        return TensorrtRunner(self._plan)

    def close(self) -> None:
        """Release graphs, contexts, buffers, the stream and the plan, in this order.

        A device that failed is released as far as it lets itself be.
        """
        steps = (self._finish, self._let_go, self._cuda.close, self._plan.release)
        for error in every_step(*steps):
            logger.warning("while an engine is closed: %s", error)

    def _finish(self) -> None:
        with self._cuda.current():
            self._cuda.synchronize()

    def _let_go(self) -> None:
        with self._cuda.current():
            self._graphs.drop()
            del self._execution, self._scratch
            self._buffers.free()

    def _new_execution(self) -> Execution:
        return Execution(self._plan, self._buffers, self._scratch, self._cuda.stream)

    @contextmanager
    def _on_device(self, arrays: Mapping[str, Any]) -> Iterator[list[BorrowedTensor]]:
        """The context current; at the end the borrowed tensors are given back."""
        borrowed = [a for a in arrays.values() if isinstance(a, BorrowedTensor)]
        try:
            with self._cuda.current():
                try:
                    yield borrowed
                except BaseException:
                    every_step(self._cuda.synchronize)  # nothing reads what is given back
                    raise
        finally:
            for tensor in borrowed:
                tensor.release()

    def _run_hosted(self, arrays: Mapping[str, Any], copy: bool, on_device: bool) -> dict[str, Any]:
        """Arrays in host memory: a graph where there is one, else enqueue and perhaps capture."""
        shapes = _shapes(arrays)
        for name, array in arrays.items():
            self._buffers.reserve(name, array.nbytes)
        captured = self._graphs.get(shapes)
        if captured is None:
            results = self._run_bound(arrays, copy, on_device)
            hands_over = on_device and copy  # its output buffers change with every call
            if self._graphs.worth_capturing(shapes) and not hands_over:
                self._capture(shapes, arrays)
            return results
        captured.execution.copy_in(arrays)
        if not captured.graph.launch():
            self._graphs.drop()
            raise self._plan.failure("a CUDA graph cannot be launched")
        return self._collect(captured.execution, copy, on_device)

    def _run_bound(self, arrays: Mapping[str, Any], copy: bool, on_device: bool) -> dict[str, Any]:
        self._execution.bind(arrays)
        self._execution.copy_in(arrays)
        self._execution.run()
        return self._collect(self._execution, copy, on_device)

    def _time(self, arrays: Mapping[str, Any], *, hosted: bool) -> dict[str, float]:
        """One query with an event at each end of its stages; the context is current."""
        captured = self._graphs.get(_shapes(arrays)) if hosted else None
        execution = captured.execution if captured else self._execution
        if captured is None:
            execution.bind(arrays)
        from_host = {n: a for n, a in arrays.items() if not isinstance(a, BorrowedTensor)}
        for name, array in from_host.items():
            self._buffers.stage(name, array)  # the host's own copy is no transfer
        with self._cuda.marks() as mark:
            marks = [mark()]
            for name, array in from_host.items():
                self._buffers.send(name, array.nbytes)
            execution.copy_in({n: a for n, a in arrays.items() if n not in from_host})
            marks.append(mark())
            if not (captured.graph.launch() if captured else execution.enqueue()):
                raise self._plan.failure("the execution failed")
            marks.append(mark())
            self._copy_out(execution)
            marks.append(mark())
            self._cuda.synchronize()
            spans = [self._cuda.between_ms(first, second) for first, second in pairwise(marks)]
            marks.clear()
        return dict(zip(("h2d_ms", "compute_ms", "d2h_ms"), spans, strict=True))

    def _collect(self, execution: Execution, copy: bool, on_device: bool) -> dict[str, Any]:
        if on_device:
            self._cuda.synchronize()
            shapes = execution.output_shapes()
            return {s.name: self._lend(s, shapes[s.name], copy) for s in self._plan.outputs}
        shapes = self._copy_out(execution)
        self._cuda.synchronize()
        views: dict[str, NDArray[Any]] = {
            spec.name: self._buffers.view(spec.name, shapes[spec.name], numpy_dtype(spec.dtype))
            for spec in self._plan.outputs
        }
        return {name: view.copy() for name, view in views.items()} if copy else views

    def _copy_out(self, execution: Execution) -> dict[str, tuple[int, ...]]:
        """All outputs into pinned memory, in the stream; their shapes."""
        shapes = execution.output_shapes()
        for spec in self._plan.outputs:
            self._buffers.copy_out(spec.name, size_bytes(shapes[spec.name], spec))
        return shapes

    def _lend(self, spec: TensorSpec, shape: tuple[int, ...], copy: bool) -> DeviceArray:
        """The output's buffer itself: lent, or handed over (the runner then takes a new one)."""
        name = spec.name
        buffer = self._buffers.hand_over(name) if copy else self._buffers[name]
        device = (CUDA, self._plan.device)
        return DeviceArray(buffer.address, shape, spec.dtype, device, buffer)

    def _capture(self, shapes: Shapes, arrays: Mapping[str, Any]) -> None:
        """Record a shape. Without success the runner goes on without graphs."""
        try:
            execution = self._new_execution()
            execution.bind(arrays)
        except BuilderError as err:
            logger.info("no CUDA graphs: %s", err)
            self._graphs.enabled = False
            return
        # TensorRT finishes deferred work in the first enqueue, which must not be recorded.
        warmed = execution.enqueue()
        self._cuda.synchronize()
        graph = self._cuda.capture(execution.enqueue) if warmed else None
        if graph is None:
            logger.info("no CUDA graphs: the plan cannot be captured: %s", self._plan.reasons())
            self._graphs.enabled = False
            return
        self._graphs.add(shapes, Captured(graph, execution))


def _shapes(arrays: Mapping[str, Any]) -> Shapes:
    return tuple(tuple(array.shape) for array in arrays.values())
