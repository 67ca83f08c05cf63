"""A deserialised plan: what all runners of it share, freed with the last of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

from artefacts.cuda import cuda_context
from artefacts.errors import EngineError, UnsupportedError
from engines.tensorrt.library import bare_context, tensorrt_log, title
from engines.tensors import Profile, TensorSpec

__all__ = ["Plan"]


class Plan:
    """Runtime and engine. Counts its users."""

    def __init__(
        self,
        trt: Any,
        data: bytes,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        profiles: Sequence[Profile],
        *,
        device: int,
        dla_core: int | None = None,
    ) -> None:
        """Deserialise a plan whose hash was checked.

        Raises:
            EngineError: TensorRT refuses the bytes.
            UnsupportedError: no such device, or a tensor that only the host has.
        """
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.profiles, self.device = tuple(profiles), device
        self._users, self._lock = 0, threading.Lock()
        self.trt = trt
        self._log = tensorrt_log(trt)
        self._cuda = cuda_context(device)
        self._engine: Any = None
        self._runtime: Any = None
        with self._cuda.current():
            try:
                self._deserialize(trt, data, dla_core)
                self._check_locations(trt)
            except BaseException:
                self._engine = self._runtime = None  # here, where the context is current
                raise

    def _deserialize(self, trt: Any, data: bytes, dla_core: int | None) -> None:
        try:
            self._runtime = trt.Runtime(self._log)
        except (TypeError, RuntimeError) as err:  # pybind11: the factory returned null
            raise self.failure(f"{title(trt)} cannot start its runtime") from err
        # Version-compatible plans carry host code: allowed because the hash was checked.
        self._runtime.engine_host_code_allowed = True
        if dla_core is not None:
            self._runtime.DLA_core = dla_core  # else it is core 0, whatever the build said
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineError(
                f"engine is refused by {title(trt)} ({self.reasons()}), "
                "expected a plan of this release for this GPU; build it again here"
            )

    def _check_locations(self, trt: Any) -> None:
        for spec in (*self.inputs, *self.outputs):
            if self._engine.get_tensor_location(spec.name) == trt.TensorLocation.HOST:
                raise UnsupportedError(
                    f"tensor {spec.name!r} holds sizes that the host must know, expected inputs "
                    "and outputs of data only; build from a model without it"
                )

    @property
    def scratch_bytes(self) -> int:
        """Of the memory for activations that an execution context needs, whatever its profile."""
        engine = self._engine
        if hasattr(engine, "device_memory_size_v2"):
            return int(engine.device_memory_size_v2)
        return int(engine.device_memory_size)

    def create_context(self, scratch_address: int, scratch_bytes: int) -> Any:
        """An execution context on memory of the caller; call with the CUDA context current.

        Raises:
            UnsupportedError: no memory for it.
        """
        context = bare_context(self.trt, self._engine)
        if context is None:
            raise self.failure("no execution context can be made")
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(scratch_address, scratch_bytes)
        else:
            context.device_memory = scratch_address
        return context

    def inspect(self, context: Any) -> dict[str, Any]:
        """The engine inspector's JSON: what each layer is, as far as the build kept it.

        Args:
            context: with shapes; without, the formats of dynamic tensors stay unknown.
        """
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = context
        text = inspector.get_engine_information(self.trt.LayerInformationFormat.JSON)
        found: dict[str, Any] = json.loads(text)
        return found

    def failure(self, what: str) -> UnsupportedError:
        """The error of a device that does not do what it should."""
        return UnsupportedError(
            f"{what} on GPU {self.device} ({self.reasons()}), expected enough free memory and a "
            "healthy device; use a smaller batch or fewer engines, or restart the process"
        )

    def reasons(self) -> str:
        """What TensorRT logged since the last question."""
        return "; ".join(self._log.take_errors()) or "TensorRT gives no reason"

    def retain(self) -> None:
        """One more user."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """One user less; the last one frees the engine, then the runtime.

        Raises:
            UnsupportedError: the device fails.
        """
        with self._lock:
            self._users -= 1
            if self._users:
                return
        with self._cuda.current():
            self._engine = None
            self._runtime = None
