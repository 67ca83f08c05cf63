"""ONNX → a compiled blob for this CPU, by OpenVINO."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from artefacts.errors import ModelError
from engines.built import BuiltEngine
from engines.coverage import openvino_kernels, openvino_precisions
from engines.fake_quantize import fuse_qdq
from engines.layer_bias import add_missing_biases
from engines.onnx_layers import graph_names
from engines.openvino_library import (
    DEVICE,
    core,
    cpu_facts,
    executed_nodes,
    library_version,
    openvino,
    port_index,
    reason,
    settings,
)
from engines.options import BuildOptions
from engines.tensors import TensorSpec
from engines.unsigned_codes import use_unsigned_codes

__all__ = ["build_blob"]

# OpenVINO's name → numpy's
DTYPES = {
    **{f"f{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"i{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "boolean": "bool",
}

logger = logging.getLogger(__name__)


def build_blob(path: Path, model: onnx.ModelProto, options: BuildOptions) -> BuiltEngine:
    """Compile an ONNX file for this CPU.

    Args:
        path: of the model; OpenVINO reads it itself, with its external data.
        model: the same model, checked.
        options: precision, profiles and threads matter here.

    Raises:
        MissingLibraryError: OpenVINO is not installed.
        ModelError: OpenVINO cannot read or compile the model.
    """
    precision = _inference_precision(options.precision)
    try:
        network = core().read_model(path)
        _reshape(network, options)
        fuse_qdq(openvino(), network)
        use_unsigned_codes(openvino(), network)
        add_missing_biases(openvino(), network)
        compiled = core().compile_model(network, DEVICE, settings(options.threads, precision))
        executed = executed_nodes(compiled)
        blob = compiled.export_model()
    except RuntimeError as err:
        raise ModelError(
            f"model {path} is refused by OpenVINO ({reason(err)}), expected operators and shapes "
            "that its CPU plugin has; simplify the model or build for another target"
        ) from err
    inputs, outputs = graph_names(model)
    return BuiltEngine(
        data=bytes(blob.getvalue() if isinstance(blob, io.BytesIO) else blob),
        library={"name": "openvino", "version": library_version()},
        device=cpu_facts(),
        inputs=tuple(_spec(compiled.inputs, name) for name in inputs),
        outputs=tuple(_spec(compiled.outputs, name) for name in outputs),
        profiles=options.profiles,
        precisions=openvino_precisions(executed),
        kernels=openvino_kernels(executed),
        source="OpenVINO executed graph",
        facts={"inference_precision": precision},
    )


def _inference_precision(precision: str) -> str:
    """The floating-point type that layers outside INT8 run in.

    fp32 and int8 state float32, so an FP32 baseline is one on every CPU (left alone, OpenVINO
    takes bfloat16 where the CPU has it). fp16 takes the half type that this CPU computes in.
    """
    if precision != "fp16":
        return "f32"
    for capability, hint in (("FP16", "f16"), ("BF16", "bf16")):
        if capability in cpu_facts()["capabilities"]:
            return hint
    logger.warning(
        "this CPU (%s) has no 16-bit floating-point arithmetic: the fp16 engine runs float32",
        cpu_facts()["name"],
    )
    return "f32"


def _reshape(network: Any, options: BuildOptions) -> None:
    """Narrow dynamic dimensions to what the profiles span: a static shape makes faster code.

    ``network`` was read for this build and belongs to it.
    """
    if not options.profiles:
        return
    known = {name for port in network.inputs for name in port.get_names()}
    bounds: dict[str, Any] = {}
    for name in options.profiles[0].min:
        if name not in known:
            raise ModelError(
                f"profile names input {name!r}, expected one of {sorted(known)}; correct it"
            )
        low = np.min([profile.min[name] for profile in options.profiles], axis=0)
        high = np.max([profile.max[name] for profile in options.profiles], axis=0)
        dims = [openvino().Dimension(int(a), int(b)) for a, b in zip(low, high, strict=True)]
        bounds[name] = openvino().PartialShape(dims)
    network.reshape(bounds)


def _spec(ports: Sequence[Any], name: str) -> TensorSpec:
    port = ports[port_index(ports, name)]
    shape = tuple(d.get_length() if d.is_static else None for d in port.get_partial_shape())
    kind = port.get_element_type().get_type_name()
    if kind not in DTYPES:
        raise ModelError(
            f"tensor {name!r} has the type {kind}, which numpy does not have, expected one of "
            f"{', '.join(DTYPES.values())} at the model's inputs and outputs; add a Cast"
        )
    dtype = DTYPES[kind]
    return TensorSpec(name=name, dtype=dtype, shape=shape)
