"""Quantized models of other tools, recognised and made TensorRT's without calibration.

What is exact is converted and said; what is not is refused with the nodes named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnx import ModelProto

from artefacts.errors import ModelError
from graphs.edit import drop_dead
from graphs.operators import INTEGER_OPS
from graphs.qdq import DEQUANTIZES, QUANTIZE, QUANTIZES
from graphs.walk import nodes, operator
from quantization.foreign.constants import (
    clip_before_quantizing,
    fold_clipped_codes,
    fold_integer_biases,
    make_scalar,
    move_transposes,
)
from quantization.foreign.dynamic import has_coded_weights_only
from quantization.foreign.operators import unfold_operators
from quantization.foreign.symmetric import Changes, make_symmetric
from quantization.prepare.prepare import prepare
from quantization.prepare.widen import widen_floats

__all__ = ["Imported", "import_quantized", "quantized_format"]

_SHOWN = 5
# What the tools write into producer_name.
_PRODUCERS = {
    "onnx.quantize": "onnxruntime or ModelOpt",
    "pytorch": "PyTorch",
    "tf2onnx": "tf2onnx (TensorFlow)",
}


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A quantized model that TensorRT takes.

    Attributes:
        model: prepared, symmetric INT8 Q/DQ.
        origin: the tool that wrote it, or "an unknown tool".
        format: "QDQ" or "QOperator".
        notes: what was converted, a sentence each.
    """

    model: ModelProto
    origin: str
    format: str
    notes: tuple[str, ...]


def quantized_format(model: ModelProto) -> str | None:
    """One of "QDQ" and "QOperator", or None for a model that is not quantized."""
    names = {operator(node) for node in nodes(model)}
    if names & INTEGER_OPS:
        return "QOperator"
    return "QDQ" if names.intersection(QUANTIZES + DEQUANTIZES) else None


def import_quantized(model: ModelProto, *, widen: bool = False) -> Imported:
    """A new model with the same codes in the form that TensorRT takes.

    Args:
        model: Q/DQ or QOperator, of any tool.
        widen: make float16 scales and tensors float32, for a runtime that has one floating-point
            type and does not bring together two.

    Raises:
        ModelError: the model is not quantized, not valid, or not symmetric and cannot be made so
            exactly.
    """
    found = quantized_format(model)
    if found is None:
        raise ModelError(
            f"model {model.graph.name!r} has no Q/DQ and no QLinear nodes, expected a quantized "
            f"model; calibrate it instead"
        )
    copy = prepare(model, widen=False)
    notes = []
    if widen and widen_floats(copy):
        notes.append("float16 scales and tensors became float32, in which this target computes")
    if count := unfold_operators(copy):
        notes.append(f"{count} QOperator nodes became Q/DQ and float operators (equal to one code)")
    if count := fold_integer_biases(copy):
        notes.append(f"{count} INT32 biases became float32")
    if count := fold_clipped_codes(copy):
        notes.append(f"{count} clipped weights became INT8 constants")
    if count := make_scalar(copy):
        notes.append(f"{count} Q/DQ nodes have their one scale as a scalar, not in a list")
    if count := clip_before_quantizing(copy):
        notes.append(f"{count} activations are clipped before they are quantized, not after")
    if count := move_transposes(copy):
        notes.append(f"{count} weights were transposed before they are quantized, not after")
    changes = make_symmetric(copy)
    if changes.refused:
        raise _refusal(model, changes)
    if changes.shifted:
        notes.append(f"{changes.shifted} Q/DQ nodes went from uint8, zero point 128, to int8, 0")
    if changes.recoded:
        notes.append(f"{changes.recoded} constants were written with zero point 0")
    if has_coded_weights_only(model):
        notes.append(
            "weights alone are quantized, so that no layer runs INT8: build with calibration data "
            "to quantize activations as well"
        )
    drop_dead(copy.graph)
    return Imported(
        model=prepare(copy, widen=False), origin=_origin(model), format=found, notes=tuple(notes)
    )


def _origin(model: ModelProto) -> str:
    """The tool, by the name it leaves in the file, or by how it names its nodes."""
    if model.producer_name:
        return _PRODUCERS.get(model.producer_name, model.producer_name)
    names = [node.name for node in nodes(model) if node.op_type == QUANTIZE]
    if names and all(re.fullmatch(rf"{QUANTIZE}_.+_\d+", name) for name in names):
        return "NNCF"
    return "an unknown tool"


def _refusal(model: ModelProto, changes: Changes) -> ModelError:
    total = len(changes.refused)
    named = [f"{name} ({what})" for name, what in list(changes.refused.items())[:_SHOWN]]
    more = f" and {total - _SHOWN} more" if total > _SHOWN else ""
    return ModelError(
        f"model {model.graph.name!r} has {total} Q/DQ nodes that are not symmetric: "
        f"{', '.join(named)}{more}; TensorRT takes int8 with zero point 0 only: strip them with "
        f"'python -m quantization strip' and calibrate again"
    )
