"""What NVIDIA's own ONNX parser and builder say of a model; needs no GPU."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx
import tensorrt_rtx as trt


class _Log(trt.ILogger):
    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        if severity == trt.ILogger.Severity.WARNING:
            # One logger serves a process: that an earlier test's stays is no finding.
            if "logger passed into" not in message:
                self.warnings.append(message)
        elif severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(message)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Errors and warnings of the parser, and of the builder where it got that far."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    plan: bytes | None = None


def parse(model: onnx.ModelProto, *, build: bool = False, batch: int = 2) -> Verdict:
    """Parse a model with TensorRT-RTX, and build it for SM 8.6 where asked."""
    log = _Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    parsed = parser.parse(model.SerializeToString())
    errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
    plan = _build(builder, network, batch) if parsed and build else None
    if not parsed or (build and plan is None):
        errors += log.errors or ["no reason given"]
    return Verdict(errors=errors, warnings=log.warnings, plan=plan)


def _build(builder: trt.Builder, network: trt.INetworkDefinition, batch: int) -> bytes | None:
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    dynamic = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape:
            dynamic = True
            fixed = tuple(batch if size == -1 else size for size in shape)
            profile.set_shape(tensor.name, fixed, fixed, fixed)
    if dynamic:
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    return None if plan is None else bytes(plan)


def supports(op_type: str) -> bool:
    """Whether the parser knows an operator of ONNX."""
    log = _Log()
    network = trt.Builder(log).create_network(0)
    return bool(trt.OnnxParser(network, log).supports_operator(op_type))
