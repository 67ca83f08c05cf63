"""Plain ONNX through onnxruntime, as a system to compare with: the FP32 reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from artefacts.errors import ModelError
from artefacts.libraries import require
from calibrators.data import InputSpec

__all__ = ["OnnxSystem"]

Arrays = dict[str, npt.NDArray[np.generic]]
# onnxruntime spells element types its own way; the rest are numpy's names.
DTYPES = {"float": "float32", "double": "float64"}


class OnnxSystem:
    """An ONNX file run by onnxruntime on the CPU; called like an engine."""

    def __init__(self, path: str | Path) -> None:
        runtime = require("onnxruntime", extra="cpu")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        # Threads that go on spinning after a run would slow the system measured next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except _onnxruntime_errors(runtime) as err:
            raise ModelError(
                f"model {path} cannot be loaded by onnxruntime ({str(err)[:200]}), expected a "
                "valid ONNX file; check it with onnx.checker"
            ) from err
        self.inputs = tuple(
            InputSpec(
                name=entry.name,
                dtype=_dtype(entry.type),
                shape=tuple(size if isinstance(size, int) else None for size in entry.shape),
            )
            for entry in self._session.get_inputs()
        )
        self._names = [entry.name for entry in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        """Outputs by name."""
        return dict(zip(self._names, self._session.run(None, dict(inputs)), strict=True))


def _dtype(spelled: str) -> np.dtype[np.generic]:
    """E.g. ``tensor(float)`` as float32."""
    name = spelled.removeprefix("tensor(").removesuffix(")")
    try:
        return np.dtype(DTYPES.get(name, name))
    except TypeError as err:
        raise ModelError(
            f"model has an input of type {spelled}, expected a numeric tensor; export it again"
        ) from err


def _onnxruntime_errors(runtime: Any) -> tuple[type[Exception], ...]:
    """The exception classes that this onnxruntime raises on a bad model: they share no base."""
    state = runtime.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile")
    more = ("NotImplemented", "RuntimeException")
    found = (getattr(state, name, None) for name in (*names, *more))
    return (RuntimeError, ValueError, *(error for error in found if error is not None))
