"""Operators that runtimes lack, written in operators that all of them have.

What scikit-learn's exporters put in front of a network are operators of ONNX's ``ai.onnx.ml``,
which neither TensorRT nor OpenVINO reads, and which are a line of arithmetic each:

    Scaler          (x - offset) * scale
    Imputer         Where(x is what stands for a missing number, imputed, x)
    Normalizer      x / d, d the row's largest value, sum of magnitudes or length; x where d is 0
    GlobalLpPool    the length of each channel (OpenVINO lacks it)
    Attention       its products, so that they are placed (quantization.prepare.attention)

Operators of text, categories and trees stay as they are, and are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from graphs.edit import replace_nodes
from graphs.walk import attributes, nodes, operator
from quantization.prepare.attention import write_attention
from quantization.prepare.writer import Writer

__all__ = ["write_out"]

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


_RULES: dict[str, Callable[[Writer, NodeProto], list[NodeProto]]] = {
    "Attention": write_attention,
    "GlobalLpPool": _global_lp_pool,
    "ai.onnx.ml.Imputer": _imputer,
    "ai.onnx.ml.Normalizer": _normalizer,
    "ai.onnx.ml.Scaler": _scaler,
}
