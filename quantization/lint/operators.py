"""Lint rules for operators that TensorRT's parser does not know, or not as they are set.

Each yields (node, what was found). Cross-checked with TensorRT-RTX's own parser in
tests/integration/test_lint_rtx.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto, defs

from graphs.operators import INTEGER_OPS
from graphs.qdq import DEQUANTIZE, QUANTIZE
from graphs.view import GraphView, Node
from graphs.walk import is_default_domain

__all__ = [
    "UNSUPPORTED_OPS",
    "custom_operator",
    "integer_operator",
    "missing_plugin",
    "training_mode",
    "unsupported_operator",
    "unsupported_setting",
    "unsupported_type",
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
    "LpPool": {"dilations": (1,), "p": (2, 1)},
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
    "TensorScatter": {"mode": ("linear",)},
}
# What operators compute that its parser knows of other types. Of uint8 it casts inputs and outputs.
_NO_OPERATOR_TYPES = {
    "ReduceMax": (TensorProto.BOOL,),
    "ReduceMin": (TensorProto.BOOL,),
    "Resize": (TensorProto.BOOL, TensorProto.INT32, TensorProto.INT64),
}
_ONE_OUTPUT = {
    "Attention": "its keys, values or scores",
    "LayerNormalization": "mean or deviation",
    "MaxPool": "indices",
}
# Attributes of Attention that change nothing at these values; windows are passed over otherwise.
_ATTENTION = {
    "left_window_size": -1,
    "right_window_size": -1,
    "softcap": 0.0,
    "softmax_precision": TensorProto.UNDEFINED,
}
_NO_TENSOR_TYPES = {
    int(TensorProto.DataType.Value(name)): name.lower()
    for name in (
        *("INT16", "STRING", "UINT4", "UINT8", "UINT16", "UINT32", "UINT64"),
        *("FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"),
    )
}
# What TensorRT reads with a plugin that TensorRT-RTX 1.7.1 does not have.
_PLUGINS = frozenset({"CausalConvWithState", "NonZero", "RoiAlign"})
# NVIDIA's own operators, which its parsers read without a plugin library of the user's.
_PARSERS_OWN = "trt."
_ONNX_OWN = "ai.onnx."  # ai.onnx.ml and its like: read where ONNX's own domain has the name, too


def integer_operator(view: GraphView) -> Found:
    """Operators of the QOperator format, and dynamic quantization."""
    for node in view.nodes:
        if node.op_type in INTEGER_OPS:
            yield node, node.op_type


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
        if node.op_type in _ONE_OUTPUT and len(list(filter(None, node.outputs))) > 1:
            yield node, f"{node.op_type} that gives {_ONE_OUTPUT[node.op_type]}, too"
        elif node.op_type == "Attention":
            for name, nothing in _ATTENTION.items():
                if node.attributes.get(name, nothing) != nothing:
                    yield node, f"Attention with {name} {_shown(node.attributes[name])}"
        elif node.op_type == "Cast":
            kind, last = node.integer("to", 0), node.outputs[0] in view.outputs
            if kind in _NO_TENSOR_TYPES and not (last and kind == TensorProto.UINT8):
                yield node, f"Cast to {_NO_TENSOR_TYPES[kind]}"
        elif node.op_type == "Mod" and not node.integer("fmod", 0) and _is_float(view, node):
            yield node, "Mod of floats without fmod"
        elif node.op_type.startswith("Reduce") and any(map(computed, node.inputs[1:])):
            yield node, f"{node.op_type} over axes that are computed"
        elif node.op_type == "Resize" and any(node.inputs[3:]) and _leaves_free(view, node):
            yield (
                node,
                f"Resize to sizes of axes {_shown(node.attributes['axes'])} beside free ones",
            )


def unsupported_type(view: GraphView) -> Found:
    """Operators on tensors of types that the parser knows as inputs and outputs, or not at all.

    Behind a Cast to such a type it is the Cast that is found.
    """
    for node in view.nodes:
        if node.op_type in (QUANTIZE, DEQUANTIZE) or node.op_type in INTEGER_OPS:
            continue
        kinds = {name: view.element_type(name) for name in node.inputs if name}
        given = [kind for name, kind in kinds.items() if _is_given(view, name)]
        unknown = [kind for kind in given if kind in _NO_TENSOR_TYPES]
        if node.op_type == "Cast":
            unknown = [kind for kind in unknown if kind != TensorProto.UINT8]
        lacking = _NO_OPERATOR_TYPES.get(node.op_type, ())
        unknown += [kind for kind in list(kinds.values())[:1] if kind in lacking]
        if unknown:
            yield node, f"{node.op_type} of {TensorProto.DataType.Name(unknown[0]).lower()}"


def _is_given(view: GraphView, name: str) -> bool:
    return name in view.inputs or view.is_constant(name)


def missing_plugin(view: GraphView) -> Found:
    """What TensorRT-RTX lacks and TensorRT has, among what both parsers know."""
    for node in view.nodes:
        if node.op_type in _PLUGINS:
            yield node, node.op_type
        elif node.op_type == "ScatterElements" and node.text("reduction", "none") != "none":
            yield node, f"ScatterElements with reduction {node.text('reduction', '')}"


def _leaves_free(view: GraphView, node: Node) -> bool:
    """Whether ``node`` names the axes that it stretches, and another one has no fixed size."""
    shape = view.shape(node.inputs[0])
    stretches = node.text("keep_aspect_ratio_policy", "stretch") == "stretch"
    if shape is None or not stretches or "axes" not in node.attributes:
        return False
    named = {axis % len(shape) for axis in node.integers("axes")}
    return any(size is None and axis not in named for axis, size in enumerate(shape))


def _is_float(view: GraphView, node: Node) -> bool:
    return view.element_type(node.inputs[0]) in (TensorProto.FLOAT, TensorProto.FLOAT16)


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


def _listed(value: object) -> list[object]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return [one.decode(errors="replace") if isinstance(one, bytes) else one for one in values]


def _shown(value: object) -> str:
    return ", ".join(str(one) for one in _listed(value))
