"""What NVIDIA's own compiler makes of a graph, on a machine without a GPU.

TensorRT-RTX compiles for a GPU that is not there, and its verbose log lists the kernels
(engines/tensorrt/plan_log.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from engines.coverage import INT8
from engines.tensorrt.plan_log import LAYERS_TITLE, logged_layers, logged_precisions


@dataclass(frozen=True, kw_only=True)
class Compiled:
    errors: tuple[str, ...]
    lists: tuple[str, ...]
    warnings: tuple[str, ...]

    def int8_nodes(self) -> set[str]:
        """ONNX nodes whose arithmetic runs INT8."""
        found = logged_precisions(self.lists)
        return {name for name, precision in found.items() if precision == INT8}

    def kernels(self) -> list[str]:
        """Names of the kernels."""
        return [layer["Name"] for text in self.lists for layer in logged_layers(text)]

    def bytes_class(self) -> tuple[int, int]:
        """How many tensors that kernels read are float, and how many INT8."""
        layers = [layer for text in self.lists for layer in logged_layers(text)]
        reads = [tensor["Datatype"] for layer in layers for tensor in layer["Inputs"]]
        return reads.count("Float"), reads.count("Int8")


def compile_model(model: bytes, *, capability: str = "SM86", parse_only: bool = False) -> Compiled:
    """Parse and build for one compute capability; skips where the library is not installed."""
    trt = pytest.importorskip("tensorrt_rtx", reason="needs pip install '.[rtx]'")
    log = _log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        errors = tuple(parser.get_error(i).desc() for i in range(parser.num_errors))
        return Compiled(errors=errors, lists=(), warnings=tuple(log.warnings))
    if parse_only:
        return Compiled(errors=(), lists=(), warnings=tuple(log.warnings))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    engine = builder.build_serialized_network(network, config)
    errors = () if engine is not None else tuple(log.warnings[-3:] or ["no engine"])
    lists = tuple(text for text in log.messages if text.startswith(LAYERS_TITLE))
    return Compiled(errors=errors, lists=lists, warnings=tuple(log.warnings))


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            self.messages.append(text)
            if severity <= trt.ILogger.Severity.WARNING:
                self.warnings.append(text)

    return Log()
