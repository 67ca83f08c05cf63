"""A deserialised plan: what all runners of it share, freed with the last of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from artefacts.errors import EngineError, UnsupportedError
from engines.cuda import Cuda
from engines.tensorrt_library import create_log, title
from engines.tensors import Profile, TensorSpec

__all__ = ["Plan"]


class Plan:
    """Runtime, engine, and the context they live in. Counts its users."""

    def __init__(
        self,
        trt: Any,
        data: bytes,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        profiles: Sequence[Profile],
        *,
        device: int,
    ) -> None:
        """Deserialise a plan whose hash was checked.

        Raises:
            EngineError: TensorRT refuses the bytes.
            UnsupportedError: no such device.
        """
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.profiles, self.device = tuple(profiles), device
        self._users = 0
        self.trt = trt
        self._log = create_log(trt)
        with ExitStack() as undo:
            self._cuda = Cuda(device)  # the primary context must outlive the engine
            undo.callback(self._cuda.close)
            self._deserialize(trt, data)
            undo.pop_all()

    def _deserialize(self, trt: Any, data: bytes) -> None:
        with self._cuda.current():
            try:
                self._runtime = trt.Runtime(self._log)
            except (TypeError, RuntimeError) as err:  # pybind11: the factory returned null
                raise self.failure(f"{title(trt)} cannot start its runtime") from err
            # Version-compatible plans carry host code: allowed because the hash was checked.
            self._runtime.engine_host_code_allowed = True
            self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineError(
                f"engine is refused by {title(trt)} ({self.reasons()}), "
                "expected a plan of this release for this GPU; build it again here"
            )

    def create_context(self) -> Any:
        """An execution context; call with the CUDA context current.

        Raises:
            UnsupportedError: no memory for it.
        """
        context = self._engine.create_execution_context()
        if context is None:
            raise self.failure("no execution context can be made")
        return context

    def inspect(self) -> dict[str, Any]:
        """The engine inspector's JSON: what each layer is, as far as the build kept it."""
        inspector = self._engine.create_engine_inspector()
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
        errors, self._log.errors[:] = list(self._log.errors), []
        return "; ".join(errors) or "TensorRT gives no reason"

    def retain(self) -> None:
        """One more user."""
        self._users += 1

    def release(self) -> None:
        """One user less; the last one frees the engine, then the runtime, then the context."""
        self._users -= 1
        if self._users:
            return
        with self._cuda.current():
            self._engine = None
            self._runtime = None
        self._cuda.close()
