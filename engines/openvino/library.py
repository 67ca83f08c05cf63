"""OpenVINO: the one file that imports it. Its core, this CPU, settings and error texts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from artefacts.errors import EngineError
from artefacts.libraries import require

__all__ = [
    "DEVICE",
    "core",
    "cpu_facts",
    "executed_nodes",
    "library_version",
    "openvino",
    "port_index",
    "reason",
    "settings",
]

DEVICE = "CPU"
TELEMETRY = "openvino_telemetry"


def openvino() -> Any:
    """The library, without the usage report that importing it would send.

    ``import openvino`` sends an event to an analytics service and makes ``~/intel``; a builder
    in a closed network must not. Blocked for the import, OpenVINO falls back to its own stub.

    Raises:
        MissingLibraryError: it is not installed.
    """
    if "openvino" in sys.modules:
        return require("openvino", extra="cpu")
    with _blocked(TELEMETRY):
        return require("openvino", extra="cpu")


@cache
def core() -> Any:
    """One core a process: it holds the CPU plugin and its thread pools."""
    return openvino().Core()


def library_version() -> str:
    """Full build string; a blob is bound to it."""
    return str(openvino().get_version())


@cache
def cpu_facts() -> dict[str, Any]:
    """Name, architecture and instruction set of this CPU as OpenVINO sees them.

    ``requirements`` is the string that OpenVINO itself compares before it accepts a blob (its
    release and the instruction set it generated code for); releases before 2026 have none.
    """
    return {
        "name": core().get_property(DEVICE, "FULL_DEVICE_NAME"),
        "architecture": core().get_property(DEVICE, "DEVICE_ARCHITECTURE"),
        "capabilities": sorted(core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")),
        "requirements": _requirements(),
    }


def settings(threads: int | None, precision: str) -> dict[str, Any]:
    """Properties of compiling and importing: one request at a time, as fast as it can be."""
    chosen: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        # Floats in front of INT8 weights stay floats: the graph says nothing else.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        # Kernels are kept for each shape that came. Unbounded (5,000 of them), 300 batch sizes of a
        # network of ten layers took 1.4 GB; so many take some 70 MB.
        "CPU_RUNTIME_CACHE_CAPACITY": 1024,
    }
    if threads is not None:
        chosen["INFERENCE_NUM_THREADS"] = threads
    return chosen


def executed_nodes(compiled: Any) -> list[dict[str, str]]:
    """What a compiled model executes, in order: name, kind, precision and origin of each node.

    ``weight`` is the constant that it alone multiplies by, where it has one: the name that is left
    of a layer that OpenVINO makes anew (``x - layer(y)``, of negated weights).
    """
    keys = ("layerType", "originalLayersNames", "runtimePrecision")
    return [
        {"name": node.get_friendly_name(), "weight": _weight(node)}
        | {key: str(info[key].value) for key in keys}
        for node in compiled.get_runtime_model().get_ordered_ops()
        for info in [node.get_rt_info()]
    ]


def _weight(node: Any) -> str:
    """Name of the constant on the right that no other node reads; "" where there is none."""
    port = node.input_value(1) if node.get_input_size() > 1 else None
    if port is None or len(port.get_target_inputs()) > 1:
        return ""
    maker = port.get_node()
    held = str(maker.get_rt_info()["layerType"].value) == "Const"
    return str(maker.get_friendly_name()) if held else ""


def port_index(ports: Sequence[Any], name: str) -> int:
    """Index of the input or output that has ``name`` among its names.

    Raises:
        EngineError: there is none.
    """
    for index, port in enumerate(ports):
        if name in port.get_names():
            return index
    raise EngineError(
        f"engine has no tensor {name!r}, expected what its manifest says; build it again"
    )


def reason(err: Exception) -> str:
    """The lines of an OpenVINO error that say why, without its source file positions."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    if "Summary:" in lines:  # of the ONNX frontend: every operator that it cannot convert
        lines = [line.removeprefix("-- ") for line in lines[lines.index("Summary:") + 1 :]]
        return "; ".join(lines)
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    checks = [line.partition(" at src/")[0] for line in lines if line.startswith("Check '")]
    return (telling or checks or lines or [type(err).__name__])[0][:300]


@contextmanager
def _blocked(module: str) -> Iterator[None]:
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # importing it then raises ImportError
    try:
        yield
    finally:
        del sys.modules[module]


def _requirements() -> str | None:
    """Compile the smallest model: only a compiled model has the property."""
    opset = require("openvino.opset1", extra="cpu")
    parameter = opset.parameter([1])
    model = openvino().Model([opset.relu(parameter)], [parameter], "smallest")
    compiled = core().compile_model(model, DEVICE)
    if "RUNTIME_REQUIREMENTS" not in compiled.get_property("SUPPORTED_PROPERTIES"):
        return None
    return str(compiled.get_property("RUNTIME_REQUIREMENTS"))
