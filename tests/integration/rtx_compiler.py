"""What NVIDIA's own compiler makes of a graph, on a machine without a GPU.

TensorRT-RTX compiles for a GPU that is not there, and its verbose log lists the kernels with the
data types of what they read and write and the ONNX nodes they came from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest

ARITHMETIC = ("correlation", "deconv", "gemm")  # convolution, transposed convolution, product


@dataclass(frozen=True, kw_only=True)
class Kernel:
    name: str
    kind: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def computes(self) -> bool:
        """Whether it multiplies matrices, alone or as a fused attention."""
        return self.kind in ARITHMETIC or "mha" in self.name


@dataclass(frozen=True, kw_only=True)
class Compiled:
    errors: tuple[str, ...]
    kernels: tuple[Kernel, ...]
    warnings: tuple[str, ...]

    def int8_nodes(self) -> set[str]:
        """ONNX nodes whose arithmetic kernel reads nothing but INT8 (a mask may be float)."""
        return {
            node
            for kernel in self.kernels
            if kernel.computes and kernel.reads and kernel.reads[0] == "Int8"
            for node in kernel.nodes
        }

    def bytes_class(self) -> tuple[int, int]:
        """How many tensors between kernels are float, and how many INT8."""
        reads = [kind for kernel in self.kernels for kind in kernel.reads]
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
        return Compiled(errors=errors, kernels=(), warnings=tuple(log.warnings))
    if parse_only:
        return Compiled(errors=(), kernels=(), warnings=tuple(log.warnings))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    engine = builder.build_serialized_network(network, config)
    errors = () if engine is not None else tuple(log.warnings[-3:] or ["no engine"])
    listed = "\n".join(text for text in log.messages if text.startswith("Layers:"))
    lines = [line for line in listed.splitlines() if line.startswith("Name: ")]
    return Compiled(errors=errors, kernels=tuple(map(_kernel, lines)), warnings=tuple(log.warnings))


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


def _kernel(line: str) -> Kernel:
    head = re.match(r"Name: (.*?), LayerType: (\w+)", line)
    assert head is not None, line
    return Kernel(
        name=head[1],
        kind=head[2],
        reads=_types(line, "Inputs"),
        writes=_types(line, "Outputs"),
        nodes=tuple(re.findall(r"\[ONNX Layer: (.*?)\]", line)),
    )


def _types(line: str, key: str) -> tuple[str, ...]:
    part = re.search(rf"{key}: \[(.*?)\], (?:Constants|Outputs|TacticName|StreamId)", line)
    return tuple(re.findall(r"Datatype: (\w+)", part[1])) if part else ()
