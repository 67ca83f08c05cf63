"""Lint rules that TensorRT's parser refuses, or silently reads as something else.

Each yields (node, what was found). Cross-checked with TensorRT-RTX's own parser in
tests/integration/test_lint_rtx.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto, defs

from graphs.operators import INTEGER_OPS
from graphs.qdq import DEQUANTIZE, QUANTIZE, Parameters, parameters
from graphs.view import GraphView, Node
from graphs.walk import is_default_domain

__all__ = [
    "UNSUPPORTED_OPS",
    "code_constant",
    "custom_operator",
    "int16",
    "int32_dequantize",
    "integer_operator",
    "missing_plugin",
    "scale_constant",
    "scale_count",
    "scale_value",
    "training_mode",
    "uint8",
    "unsupported_operator",
    "unsupported_setting",
    "zero_point",
]

Found = Iterator[tuple[Node, str]]

# OnnxParser.supports_operator() of TensorRT-RTX 1.7.1 is false; older versions know fewer.
UNSUPPORTED_OPS = frozenset(
    """
    AffineGrid Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad
    Col2Im Compress ConcatFromSequence CumProd DFT DeformConv Det ImageDecoder MaxRoiPool MaxUnpool
    MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement
    OptionalHasElement RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty SequenceErase
    SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence StringConcat
    StringNormalizer StringSplit SwiGLU TfIdfVectorizer Unique
    """.split()  # noqa: SIM905
)
# Operator → attribute → the values of it that the parser takes; others by name in its errors.
_SETTINGS: dict[str, dict[str, tuple[int | str, ...]]] = {
    "AveragePool": {"dilations": (1,)},
    "MaxPool": {"dilations": (1,)},
    "Resize": {
        "antialias": (0,),
        "coordinate_transformation_mode": (
            *("align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel"),
            "tf_half_pixel_for_nn",
        ),
        "keep_aspect_ratio_policy": ("stretch",),
    },
    "ScatterND": {"reduction": ("none",)},
}
_NO_TENSOR_TYPES = {
    int(TensorProto.DataType.Value(name)): name.lower()
    for name in ("INT16", "STRING", "UINT8", "UINT16", "UINT32", "UINT64")
}
# What TensorRT reads with a plugin that TensorRT-RTX 1.7.1 does not have.
_PLUGINS = frozenset({"NonZero"})
# NVIDIA's own operators, which its parsers read without a plugin library of the user's.
_PARSERS_OWN = "trt."
_ONNX_OWN = "ai.onnx."  # ai.onnx.ml and its like: read where ONNX's own domain has the name, too


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


def integer_operator(view: GraphView) -> Found:
    """Operators of the QOperator format, and dynamic quantization."""
    for node in view.nodes:
        if node.op_type in INTEGER_OPS:
            yield node, node.op_type


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


def custom_operator(view: GraphView) -> Found:
    """Operators that need a plugin."""
    for node in view.nodes:
        domain, name = node.proto.domain, node.proto.op_type
        known = is_default_domain(node.proto) or domain.startswith(_PARSERS_OWN)
        known = known or (domain.startswith(_ONNX_OWN) and defs.has(name))
        if not known and node.op_type not in INTEGER_OPS:
            yield node, node.op_type


def unsupported_operator(view: GraphView) -> Found:
    """Operators that the parser does not know."""
    for node in view.nodes:
        if node.op_type in UNSUPPORTED_OPS:
            yield node, node.op_type


def unsupported_setting(view: GraphView) -> Found:
    """Operators that the parser knows, in a way that it does not."""

    def computed(name: str) -> bool:
        return bool(name) and not view.is_constant(name)

    for node in view.nodes:
        for name, taken in _SETTINGS.get(node.op_type, {}).items():
            if any(value not in taken for value in _listed(node.attributes.get(name, taken[0]))):
                yield node, f"{node.op_type} with {name} {_shown(node.attributes[name])}"
        if node.op_type == "MaxPool" and len(list(filter(None, node.outputs))) > 1:
            yield node, "MaxPool that gives indices, too"
        elif node.op_type == "Cast" and node.outputs[0] not in view.outputs:
            kind = _NO_TENSOR_TYPES.get(node.integer("to", 0))
            if kind is not None:
                yield node, f"Cast to {kind}"
        elif node.op_type.startswith("Reduce") and any(map(computed, node.inputs[1:])):
            yield node, f"{node.op_type} over axes that are computed"


def missing_plugin(view: GraphView) -> Found:
    """What TensorRT-RTX lacks and TensorRT has, among what both parsers know."""
    for node in view.nodes:
        if node.op_type in _PLUGINS:
            yield node, node.op_type
        elif node.op_type == "ScatterElements" and node.text("reduction", "none") != "none":
            yield node, f"ScatterElements with reduction {node.text('reduction', '')}"


def _listed(value: object) -> list[object]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return [one.decode(errors="replace") if isinstance(one, bytes) else one for one in values]


def _shown(value: object) -> str:
    return ", ".join(str(one) for one in _listed(value))


def training_mode(view: GraphView) -> Found:
    """Dropout that drops, BatchNormalization that takes statistics from the batch."""
    for node in view.nodes:
        if node.op_type == "BatchNormalization" and node.integer("training_mode", 0):
            yield node, "training_mode = 1"
        elif node.op_type == "BatchNormalization" and any(node.outputs[1:]):  # before opset 14
            yield node, "statistics as outputs"
        elif node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2]:
            mode = view.constant(node.inputs[2])
            if mode is None or mode.any():
                yield node, "training_mode is not false"


def _quantizers(view: GraphView) -> Iterator[tuple[Node, Parameters]]:
    for node in view.nodes:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            yield node, parameters(view, node)


def _type(view: GraphView, node: Node) -> int:
    return view.element_type(node.inputs[0]) or parameters(view, node).data_type


def _feeds_bias(view: GraphView, node: Node) -> bool:
    return any(use.index == 2 for use in view.uses(node.outputs[0]))
