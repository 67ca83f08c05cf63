"""One execution context of a plan: what a call binds to it, and what it says of the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from artefacts.errors import RequestError
from engines.cuda.buffers import Buffers
from engines.cuda.memory import DeviceBuffer
from engines.dlpack import BorrowedTensor
from engines.tensorrt.plan import Plan
from engines.tensors import TensorSpec, numpy_dtype

__all__ = ["Execution", "size_bytes"]

ALIGNMENT = 256  # that TensorRT demands of an address (NvInferRuntime.h, setTensorAddress)


class Execution:
    """TensorRT wants one context for each thread and each CUDA graph.

    Use it with the CUDA context current.
    """

    def __init__(self, plan: Plan, buffers: Buffers, scratch: DeviceBuffer, stream: int) -> None:
        """Make a context.

        Args:
            plan: of which.
            buffers: where inputs and outputs lie.
            scratch: ``plan.scratch_bytes`` of memory for activations. Executions that share it
                must run one after the other, as in one stream they do.
            stream: where it runs.

        Raises:
            UnsupportedError: no memory for it.
        """
        self.context = plan.create_context(scratch.address, scratch.size_bytes)
        self._scratch = scratch  # lives as long as the context that was given its address
        self._plan, self._buffers, self._stream = plan, buffers, stream

    def bind(self, arrays: Mapping[str, Any]) -> None:
        """Profile, shapes and addresses of one call.

        Raises:
            RequestError: shapes that do not fit the plan or each other.
            UnsupportedError: no memory for a tensor.
        """
        self._choose_profile({name: array.shape for name, array in arrays.items()})
        for name, array in arrays.items():
            if not self.context.set_input_shape(name, tuple(array.shape)):
                raise RequestError(
                    f"input {name!r} has shape {tuple(array.shape)}, which the plan refuses "
                    f"({self._plan.reasons()}), expected a shape within its profiles; correct it"
                )
        for name, array in arrays.items():
            if is_bound_in_place(array):
                self._set_address(name, array.address)
            else:
                self._buffers.reserve(name, array.nbytes)
                self._set_address(name, self._buffers[name].address)
        for name, shape in self.output_shapes().items():
            spec = next(s for s in self._plan.outputs if s.name == name)
            self._buffers.reserve(name, size_bytes(shape, spec))
            self._set_address(name, self._buffers[name].address)

    def copy_in(self, arrays: Mapping[str, Any]) -> None:
        """The inputs to where they were bound, in the stream."""
        for name, array in arrays.items():
            if not isinstance(array, BorrowedTensor):
                self._buffers.copy_in(name, array)
            elif not is_bound_in_place(array):
                self._buffers.copy_within(name, array.address, array.nbytes)

    def enqueue(self) -> bool:
        """Put the work into the stream; whether TensorRT could."""
        return bool(self.context.execute_async_v3(self._stream))

    def run(self) -> None:
        """Put the work into the stream.

        Raises:
            UnsupportedError: TensorRT could not.
        """
        if not self.enqueue():
            raise self._plan.failure("the execution failed")

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the shapes that were bound.

        TensorRT's own ``infer_shapes`` is not asked: up to 10.12 its binding raises without holding
        the interpreter's lock, which ends the process.

        Raises:
            RequestError: the inputs do not fit each other, or a size depends on the data.
        """
        return {spec.name: self._output_shape(spec.name) for spec in self._plan.outputs}

    def _output_shape(self, name: str) -> tuple[int, ...]:
        try:
            shape = tuple(self.context.get_tensor_shape(name))
        except (ValueError, RuntimeError) as err:
            # TensorRT's way to say that there is no shape: -1 dimensions, an error from 11 on.
            raise RequestError(
                f"inputs do not fit each other ({self._plan.reasons()}), expected shapes from "
                f"which that of output {name!r} follows; correct them"
            ) from err
        if any(size < 0 for size in shape):
            raise RequestError(
                f"output {name!r} has shape {shape} ({self._plan.reasons()}), expected sizes that "
                "follow from the inputs; correct inputs that do not fit each other, or end the "
                "model before a node whose size depends on the data"
            )
        return shape

    def _set_address(self, name: str, address: int) -> None:
        if not self.context.set_tensor_address(name, address):
            raise self._plan.failure(f"the address of tensor {name!r} is refused")

    def _choose_profile(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """A new context has a profile only if it is the first one of its engine."""
        fitting = (i for i, p in enumerate(self._plan.profiles) if p.contains(shapes))
        index = next(fitting, 0)
        if self.context.active_optimization_profile == index:
            return
        if not self.context.set_optimization_profile_async(index, self._stream):
            raise self._plan.failure(f"profile {index} is refused")


def is_bound_in_place(array: Any) -> bool:
    """Whether a tensor lies where TensorRT can read it: on the device, and aligned.

    A slice of a tensor mostly is not: it is copied.
    """
    return isinstance(array, BorrowedTensor) and array.address % ALIGNMENT == 0


def size_bytes(shape: tuple[int, ...], spec: TensorSpec) -> int:
    """Of a tensor with this shape."""
    return int(np.prod(shape, dtype=np.int64)) * numpy_dtype(spec.dtype).itemsize
