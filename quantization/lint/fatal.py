"""Lint rules for Q/DQ pairs that TensorRT's parser refuses, or silently reads as something else.

Each yields (node, what was found). Cross-checked with TensorRT-RTX's own parser in
tests/integration/test_lint_rtx.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from graphs.qdq import DEQUANTIZE, QUANTIZE, Parameters, parameters
from graphs.view import GraphView, Node

__all__ = [
    "code_constant",
    "int16",
    "int32_dequantize",
    "scale_constant",
    "scale_count",
    "scale_value",
    "uint8",
    "zero_point",
]

Found = Iterator[tuple[Node, str]]


def zero_point(view: GraphView) -> Found:
    """INT8 must be symmetric."""
    for node, found in _quantizers(view):
        if found.zero_point is not None and found.zero_point.astype(np.int64).any():
            values = np.unique(found.zero_point.astype(np.int64))
            yield node, f"zero point {', '.join(str(value) for value in values[:4])}"


def uint8(view: GraphView) -> Found:
    """Codes 128 to 255 would be read as 127."""
    for node, found in _quantizers(view):
        if found.data_type == TensorProto.UINT8:
            yield node, "no zero point, which means uint8 in ONNX" if found.implied else "uint8"


def int16(view: GraphView) -> Found:
    """16-bit codes."""
    names = {int(TensorProto.INT16): "int16", int(TensorProto.UINT16): "uint16"}
    for node, found in _quantizers(view):
        if found.data_type in names:
            yield node, names[found.data_type]


def int32_dequantize(view: GraphView) -> Found:
    """Onnxruntime stores a bias as INT32 codes."""
    for node in view.nodes:
        if node.op_type == DEQUANTIZE and _type(view, node) == TensorProto.INT32:
            yield node, "int32 codes" + (" of a bias" if _feeds_bias(view, node) else "")


def code_constant(view: GraphView) -> Found:
    """INT8 weights that are clipped, transposed or reshaped before they are dequantized.

    The bounds of a Clip of codes that are computed are taken.
    """
    for node in view.nodes:
        computed = node.op_type == "Clip" and not view.is_constant(node.inputs[0])
        for index, name in enumerate(node.inputs):
            if (
                computed
                or not view.is_constant(name)
                or view.element_type(name) != TensorProto.INT8
            ):
                continue
            if node.op_type not in (QUANTIZE, DEQUANTIZE) or index == 1:
                yield node, f"{node.op_type} of INT8 constant {name}"


def scale_value(view: GraphView) -> Found:
    """A scale is a positive number."""
    for node, found in _quantizers(view):
        if found.scale is None:
            continue
        scale = found.scale.astype(np.float64)
        wrong = scale[~(scale > 0)]
        if wrong.size:
            yield node, f"scale {wrong.flat[0]:g} ({wrong.size} of {scale.size})"


def scale_constant(view: GraphView) -> Found:
    """Scales and zero points are known when the engine is built."""
    for node, found in _quantizers(view):
        if found.scale is None or found.zero_point is None:
            yield node, "scale" if found.scale is None else "zero point"


def scale_count(view: GraphView) -> Found:
    """One scale, or one for each channel of the axis."""
    for node, found in _quantizers(view):
        shape = view.shape(node.inputs[0])
        if not found.per_channel or shape is None or found.scale is None:
            continue
        if not -len(shape) <= found.axis < len(shape):
            yield node, f"axis {found.axis} of shape {list(shape)}"
        elif shape[found.axis] not in (None, found.scale.size) and found.scale.ndim == 1:
            yield node, f"{found.scale.size} scales for {shape[found.axis]} channels"


def _quantizers(view: GraphView) -> Iterator[tuple[Node, Parameters]]:
    for node in view.nodes:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            yield node, parameters(view, node)


def _type(view: GraphView, node: Node) -> int:
    return view.element_type(node.inputs[0]) or parameters(view, node).data_type


def _feeds_bias(view: GraphView, node: Node) -> bool:
    return any(use.index == 2 for use in view.uses(node.outputs[0]))
