"""Operators and element types that runtimes lack, written in those that all of them have.

What scikit-learn's exporters put in front of a network are operators of ONNX's ``ai.onnx.ml``,
which neither TensorRT nor OpenVINO reads, and which are a line of arithmetic each:

    Scaler          (x - offset) * scale
    Imputer         Where(x is what stands for a missing number, imputed, x)
    Normalizer      x / d, d the row's largest value, sum of magnitudes or length; x where d is 0
    Linear…         linear models and the labels they choose (quantization.prepare.linear_models)
    GlobalLpPool    the length of each channel (OpenVINO lacks it)
    OneHot          of indices, depth and values in types that onnxruntime counts with
    Range           of ends that are scalars, where they became constants of one axis
    Resize          to sizes of some axes, of all (quantization.prepare.resizes)
    If              of a condition of one element, of a scalar (OpenVINO takes no more axes)
    Where           of booleans through int32, which onnxruntime chooses from
    Attention       its products, so that they are placed (quantization.prepare.attention)
    Einsum          of two terms, the MatMul that it is (quantization.prepare.einsum)
    Col2Im          of patches side by side, Reshapes and a Transpose (quantization.prepare.patches)
    DFT, STFT       products with cosines and sines (quantization.prepare.spectra)

Operators of text, categories and trees stay as they are, and are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from graphs.edit import replace_nodes
from graphs.walk import attributes, nodes, operator
from quantization.prepare.attention import write_attention
from quantization.prepare.einsum import write_einsum
from quantization.prepare.linear_models import write_classifier, write_columns, write_regressor
from quantization.prepare.patches import write_col2im
from quantization.prepare.resizes import write_all_sizes
from quantization.prepare.spectra import write_dft, write_stft
from quantization.prepare.writer import Writer

__all__ = ["write_out"]

# Types of indices, depth and values that onnxruntime 1.32 has a kernel of OneHot for.
_ONE_HOT = frozenset(
    {
        (TensorProto.INT64, TensorProto.INT64, TensorProto.FLOAT),
        (TensorProto.INT64, TensorProto.INT64, TensorProto.INT64),
        (TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT),
        (TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT),
        (TensorProto.INT32, TensorProto.INT32, TensorProto.FLOAT),
        (TensorProto.INT32, TensorProto.FLOAT, TensorProto.FLOAT),
        (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.FLOAT),
    }
)
_NORMS = {"MAX": "ReduceMax", "L1": "ReduceL1", "L2": "ReduceL2"}


def write_out(model: ModelProto) -> bool:
    """Replace what can be written in arithmetic. Returns whether anything was.

    Args:
        model: changed in place; its shapes are inferred.
    """
    if not any(operator(node) in _RULES for node in nodes(model)):
        return False
    writer, changed = Writer(model), False
    kept: list[NodeProto] = []
    for node in nodes(model):
        rule = _RULES.get(operator(node))
        written = rule(writer, node) if rule else []
        changed |= bool(written)
        kept.extend(written or [node])
    if changed:
        replace_nodes(model.graph, kept)
    return changed


def _scaler(writer: Writer, node: NodeProto) -> list[NodeProto]:
    given = attributes(node)
    written = writer.as_float(node)
    source = written[-1].output[0] if written else node.input[0]
    offset = writer.constant(node, "offset", given.get("offset", [0.0]), np.float32)
    scale = writer.constant(node, "scale", given.get("scale", [1.0]), np.float32)
    centred = writer.step(node, "Sub", [source, offset])
    return [*written, centred, writer.step(node, "Mul", [centred.output[0], scale], last=True)]


def _imputer(writer: Writer, node: NodeProto) -> list[NodeProto]:
    given = attributes(node)
    source = node.input[0]
    if writer.kind(source) != TensorProto.FLOAT or "imputed_value_floats" not in given:
        return []
    imputed = writer.constant(node, "imputed", given["imputed_value_floats"], np.float32)
    missing = float(given.get("replaced_value_float", 0.0))
    if np.isnan(missing):
        found = writer.step(node, "IsNaN", [source])
    else:
        mark = writer.constant(node, "missing", missing, np.float32)
        found = writer.step(node, "Equal", [source, mark])
    return [found, writer.step(node, "Where", [found.output[0], imputed, source], last=True)]


def _normalizer(writer: Writer, node: NodeProto) -> list[NodeProto]:
    norm = _NORMS.get(attributes(node).get("norm", b"MAX").decode())
    if norm is None or writer.rank(node.input[0]) is None:
        return []
    written = writer.as_float(node)
    source = written[-1].output[0] if written else node.input[0]
    divisor = writer.reduced(node, norm, source, [-1])
    zero, one = (writer.constant(node, f"of_{n}", n, np.float32) for n in (0, 1))
    nothing = writer.step(node, "Equal", [divisor.output[0], zero])
    safe = writer.step(node, "Where", [nothing.output[0], one, divisor.output[0]])
    quotient = writer.step(node, "Div", [source, safe.output[0]], last=True)
    return [*written, divisor, nothing, safe, quotient]


def _global_lp_pool(writer: Writer, node: NodeProto) -> list[NodeProto]:
    norm = {1: "ReduceL1", 2: "ReduceL2"}.get(attributes(node).get("p", 2))
    rank = writer.rank(node.input[0])
    if norm is None or rank is None:
        return []
    return [writer.reduced(node, norm, node.input[0], list(range(2, rank)), last=True)]


def _one_hot(writer: Writer, node: NodeProto) -> list[NodeProto]:
    kinds = tuple(writer.kind(name) for name in node.input)
    if 0 in kinds or TensorProto.STRING in kinds or kinds in _ONE_HOT:
        return []
    values = kinds[2] if kinds[2] == TensorProto.FLOAT else TensorProto.INT64
    return _in_types(writer, node, (TensorProto.INT64, TensorProto.INT64, values))


def _where(writer: Writer, node: NodeProto) -> list[NodeProto]:
    if writer.kind(node.input[1]) != TensorProto.BOOL:
        return []
    return _in_types(writer, node, (TensorProto.BOOL, TensorProto.INT32, TensorProto.INT32))


def _if(writer: Writer, node: NodeProto) -> list[NodeProto]:
    if not writer.rank(node.input[0]):
        return []
    shape = writer.constant(node, "scalar", [], np.int64)
    scalar = writer.step(node, "Reshape", [node.input[0], shape])
    chosen = NodeProto()
    chosen.CopyFrom(node)
    chosen.input[0] = scalar.output[0]
    return [scalar, chosen]


def _range(writer: Writer, node: NodeProto) -> list[NodeProto]:
    """Ends that are scalars: runtimes take a computed list of one for one, a constant not."""
    stored = {name: writer.constants[name] for name in node.input if name in writer.constants}
    ends = {name: numpy_helper.to_array(tensor) for name, tensor in stored.items() if tensor.dims}
    if not ends or any(end.size != 1 for end in ends.values()):
        return []
    scalars = {
        name: writer.constant(node, "end", end.reshape(()), end.dtype) for name, end in ends.items()
    }
    inputs = [scalars.get(name, name) for name in node.input]
    return [writer.step(node, "Range", inputs, last=True)]


def _in_types(writer: Writer, node: NodeProto, wanted: Sequence[int]) -> list[NodeProto]:
    """The node between casts; its result is of the type of its last input, before and behind."""
    given = [writer.kind(name) for name in node.input]
    casts: dict[int, NodeProto] = {
        index: writer.step(node, "Cast", [node.input[index]], to=kind)
        for index, kind in enumerate(wanted)
        if kind != given[index]
    }
    inputs = [
        casts[index].output[0] if index in casts else name for index, name in enumerate(node.input)
    ]
    back = given[-1] != wanted[-1]
    same = writer.step(node, node.op_type, inputs, last=not back, **attributes(node))
    end = [writer.step(node, "Cast", same.output, last=True, to=given[-1])] if back else []
    return [*casts.values(), same, *end]


_RULES: dict[str, Callable[[Writer, NodeProto], list[NodeProto]]] = {
    "Attention": write_attention,
    "Col2Im": write_col2im,
    "DFT": write_dft,
    "Einsum": write_einsum,
    "GlobalLpPool": _global_lp_pool,
    "If": _if,
    "OneHot": _one_hot,
    "Range": _range,
    "Resize": write_all_sizes,
    "STFT": write_stft,
    "Where": _where,
    "ai.onnx.ml.ArrayFeatureExtractor": write_columns,
    "ai.onnx.ml.Imputer": _imputer,
    "ai.onnx.ml.LinearClassifier": write_classifier,
    "ai.onnx.ml.LinearRegressor": write_regressor,
    "ai.onnx.ml.Normalizer": _normalizer,
    "ai.onnx.ml.Scaler": _scaler,
}
