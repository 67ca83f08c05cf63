"""OpenVINO, the ``cpu`` target: the one file that imports it. Compile, export, import, run."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import EngineError, ModelError, RequestError
from artefacts.libraries import require
from engines.options import BuildOptions
from engines.tensors import TensorSpec

__all__ = ["CompiledBlob", "OpenvinoRunner", "compile_blob", "cpu_facts", "library_version"]

logger = logging.getLogger(__name__)

DEVICE = "CPU"
TELEMETRY = "openvino_telemetry"


@dataclass(frozen=True, kw_only=True)
class CompiledBlob:
    """A compiled model as bytes, and what the runtime says of it."""

    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    executed: tuple[Mapping[str, str], ...]
    precision: str


def library_version() -> str:
    """Full build string; a blob is bound to it."""
    return str(_openvino().get_version())


@cache
def cpu_facts() -> dict[str, Any]:
    """Name, architecture and instruction set of this CPU as OpenVINO sees them.

    ``requirements`` is the string that OpenVINO itself compares before it accepts a blob (its
    release and the instruction set it generated code for); releases before 2026 have none.
    """
    core = _core()
    return {
        "name": core.get_property(DEVICE, "FULL_DEVICE_NAME"),
        "architecture": core.get_property(DEVICE, "DEVICE_ARCHITECTURE"),
        "capabilities": sorted(core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")),
        "requirements": _requirements(_smallest_model(core)),
    }


def compile_blob(
    onnx_path: Path, options: BuildOptions, inputs: Sequence[str], outputs: Sequence[str]
) -> CompiledBlob:
    """Compile an ONNX file for this CPU.

    Args:
        onnx_path: a checked model.
        options: precision, profiles and threads matter here.
        inputs: names of the graph's inputs; OpenVINO may know a tensor by several.
        outputs: names of the graph's outputs.

    Raises:
        MissingLibraryError: OpenVINO is not installed.
        ModelError: OpenVINO cannot read or compile the model.
    """
    core = _core()
    hint = _inference_precision(options.precision)
    try:
        model = core.read_model(onnx_path)
        _reshape(model, options)
        compiled = core.compile_model(model, DEVICE, _settings(options.threads, hint))
        executed = _executed(compiled)
    except RuntimeError as err:
        raise ModelError(
            f"model {onnx_path} is refused by OpenVINO ({_reason(err)}), expected operators and "
            "shapes that its CPU plugin has; simplify the model or build for another target"
        ) from err
    return CompiledBlob(
        data=_exported(compiled),
        inputs=tuple(_spec(compiled.inputs, name) for name in inputs),
        outputs=tuple(_spec(compiled.outputs, name) for name in outputs),
        executed=executed,
        precision=hint,
    )


class OpenvinoRunner:
    """One infer request on an imported blob."""

    def __init__(self, compiled: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]):
        """Take a compiled model; ``load`` makes one from bytes."""
        self._compiled = compiled
        self._specs = (tuple(inputs), tuple(outputs))
        self._request = compiled.create_infer_request()
        self._inputs = {s.name: _port(compiled.inputs, s.name) for s in inputs}
        self._outputs = [(s.name, _port(compiled.outputs, s.name)) for s in outputs]

    @classmethod
    def load(
        cls,
        data: bytes,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        threads: int | None,
        precision: str,
    ) -> OpenvinoRunner:
        """Import a blob whose hash was checked.

        Raises:
            EngineError: OpenVINO refuses the bytes.
        """
        try:
            compiled = _core().import_model(io.BytesIO(data), DEVICE, _settings(threads, precision))
        except RuntimeError as err:
            raise EngineError(
                f"engine is refused by OpenVINO {library_version()} ({_reason(err)}), expected a "
                "blob that this release exported on this kind of CPU; build it again here"
            ) from err
        return cls(compiled, inputs, outputs)

    def run(self, arrays: Mapping[str, NDArray[Any]], *, copy: bool) -> dict[str, NDArray[Any]]:
        """Infer checked arrays. Without ``copy`` the next call overwrites what is returned."""
        request = {self._inputs[name]: array for name, array in arrays.items()}
        try:
            results = self._request.infer(request, share_inputs=True, share_outputs=True)
        except RuntimeError as err:
            raise RequestError(
                f"request fails in OpenVINO ({_reason(err)}), expected shapes that fit each "
                "other; correct the arrays"
            ) from err
        if copy:
            return {name: np.array(results[port]) for name, port in self._outputs}
        return {name: results[port] for name, port in self._outputs}

    def clone(self) -> OpenvinoRunner:
        """Another infer request on the same compiled model, for another thread."""
        return OpenvinoRunner(self._compiled, *self._specs)

    def close(self) -> None:
        """Drop the request and the model; memory goes with the last request of a model."""
        self._request = self._compiled = None


def _openvino() -> Any:
    """The library, without the usage report that importing it would send.

    ``import openvino`` sends an event to an analytics service and makes ``~/intel``; a builder
    in a closed network must not. Blocked for the import, OpenVINO falls back to its own stub.
    """
    if "openvino" in sys.modules:
        return require("openvino", extra="cpu")
    with _blocked(TELEMETRY):
        return require("openvino", extra="cpu")


@contextmanager
def _blocked(module: str) -> Iterator[None]:
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # import then raises ImportError
    try:
        yield
    finally:
        del sys.modules[module]


@cache
def _core() -> Any:
    return _openvino().Core()


def _settings(threads: int | None, precision: str) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings


def _inference_precision(precision: str) -> str:
    """The floating-point type that layers outside INT8 run in.

    fp32 and int8 state float32, so an FP32 baseline is one on every CPU (left alone, OpenVINO
    takes bfloat16 where the CPU has it). fp16 takes the half type that this CPU computes in.
    """
    if precision != "fp16":
        return "f32"
    capabilities = cpu_facts()["capabilities"]
    for capability, hint in (("FP16", "f16"), ("BF16", "bf16")):
        if capability in capabilities:
            return hint
    logger.warning(
        "this CPU (%s) has no 16-bit floating-point arithmetic: the fp16 engine runs float32",
        cpu_facts()["name"],
    )
    return "f32"


def _reshape(model: Any, options: BuildOptions) -> None:
    """Narrow dynamic dimensions to what the profiles span; a static shape compiles to faster code.

    ``model`` was read for this build only.
    """
    if not options.profiles:
        return
    openvino = _openvino()
    bounds: dict[str, Any] = {}
    for name in options.profiles[0].min:
        low = np.min([profile.min[name] for profile in options.profiles], axis=0)
        high = np.max([profile.max[name] for profile in options.profiles], axis=0)
        bounds[name] = openvino.PartialShape(
            [openvino.Dimension(int(a), int(b)) for a, b in zip(low, high, strict=True)]
        )
    known = {name for port in model.inputs for name in port.get_names()}
    if unknown := sorted(set(bounds) - known):
        raise ModelError(
            f"profile names input {unknown[0]!r}, expected one of {sorted(known)}; correct it"
        )
    model.reshape(bounds)


def _executed(compiled: Any) -> tuple[Mapping[str, str], ...]:
    keys = ("layerType", "originalLayersNames", "runtimePrecision")
    graph = compiled.get_runtime_model()
    infos = (node.get_rt_info() for node in graph.get_ordered_ops())
    return tuple({key: str(info[key].value) for key in keys} for info in infos)


def _exported(compiled: Any) -> bytes:
    blob = compiled.export_model()
    return bytes(blob.getvalue() if isinstance(blob, io.BytesIO) else blob)


def _spec(ports: Sequence[Any], name: str) -> TensorSpec:
    port = ports[_port(ports, name)]
    shape = tuple(d.get_length() if d.is_static else None for d in port.get_partial_shape())
    dtype = np.dtype(port.get_element_type().to_dtype()).name
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def _port(ports: Sequence[Any], name: str) -> int:
    for index, port in enumerate(ports):
        if name in port.get_names():
            return index
    raise EngineError(
        f"engine has no tensor {name!r}, expected what its manifest says; build it again"
    )


def _smallest_model(core: Any) -> Any:
    opset = require("openvino.opset1", extra="cpu")
    parameter = opset.parameter([1])
    model = _openvino().Model([opset.relu(parameter)], [parameter], "smallest")
    return core.compile_model(model, DEVICE)


def _requirements(compiled: Any) -> str | None:
    if "RUNTIME_REQUIREMENTS" not in compiled.get_property("SUPPORTED_PROPERTIES"):
        return None
    return str(compiled.get_property("RUNTIME_REQUIREMENTS"))


def _reason(err: Exception) -> str:
    """The line of an OpenVINO error that says why, without its source file positions."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (telling or lines or [type(err).__name__])[0][:300]
