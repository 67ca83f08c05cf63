"""Which operators stay in float32 when the rest becomes float16, and why.

float16 holds |x| up to 65504, normal numbers from 6.1e-5, and integers exactly up to 2048
(IEEE 754 binary16: 11 significant bits, exponents -14 to 15).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, defs

from graphs.operators import CONTROL_OPS, HALF_RISKS, RECURRENT_OPS, TYPED_OPS, WEIGHTED_OPS
from graphs.opset import opset_of
from graphs.qdq import DEQUANTIZE, source
from graphs.view import GraphView, Node

__all__ = ["LARGEST_HALF", "accepts_half", "constant_error", "why_float"]

LARGEST_HALF = float(np.finfo(np.float16).max)
SMALLEST_HALF = float(np.finfo(np.float16).smallest_normal)
# Relative error of a whole constant. Normal float16 numbers have at most 2^-11 = 0.05 %.
CONSTANT_ERROR = 2e-3
_BIAS = 2  # input of a layer

_RISKS = {
    "growth": "its result can pass 65504 for ordinary inputs",
    "index": "its numbers are positions, which float16 holds exactly only up to 2048",
    "sum": "sums many numbers, and a float16 sum overflows or stops growing",
    "vanishing": "small inputs vanish before it",
}
# TensorRT-RTX 1.7.1: "ElementWiseOperation SUM must have same input types".
_PARSED_IN_FLOAT = {
    "MeanVarianceNormalization": "NVIDIA's parser adds a float32 constant in it",
}


def why_float(
    view: GraphView,
    node: Node,
    amax: Mapping[str, float],
    magnitudes: Mapping[str, float] | None = None,
) -> str | None:
    """Why a node stays in float32; None where it need not.

    Args:
        view: of the graph.
        node: one with float32 inputs or outputs.
        amax: largest |x| observed, by tensor; tensors may be missing.
        magnitudes: the same of a few samples, for all tensors: too few to trust an Exp with.
    """
    known = {**(magnitudes or {}), **amax}
    return (
        _no_half(node, view)
        or _overflows(view, node, known)
        or _vanishes(view, node, known)
        or _constants(view, node, known)
        or _vanishing_epsilon(node)
        or _lengths(node)
        or _sensitive(view, node, amax)
        or _from_integers(view, node)
    )


def accepts_half(node: Node, opset: int, index: int, *, output: bool = False) -> bool:
    """Whether ONNX allows float16 at one input or output of an operator."""
    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        return False
    formal = schema.outputs if output else schema.inputs
    if not formal:
        return False
    last = formal[-1]
    if index >= len(formal) and last.option != defs.OpSchema.FormalParameterOption.Variadic:
        return False
    return "tensor(float16)" in formal[min(index, len(formal) - 1)].types


def _no_half(node: Node, view: GraphView) -> str | None:
    opset = opset_of(view.model)
    if node.proto.domain not in ("", "ai.onnx"):
        return "a custom operator"
    if node.op_type in CONTROL_OPS:
        return "its body is left as it is"
    if node.op_type in TYPED_OPS:
        return "its type is written in an attribute"
    floats = [i for i, name in enumerate(node.inputs) if _is_float(view, name)]
    results = [i for i, name in enumerate(node.outputs) if _is_float(view, name)]
    if floats and not any(accepts_half(node, opset, i) for i in floats):
        return f"ONNX opset {opset} has no float16 for it"
    if results and not any(accepts_half(node, opset, i, output=True) for i in results):
        return f"ONNX opset {opset} has no float16 for it"
    return None


def _overflows(view: GraphView, node: Node, amax: Mapping[str, float]) -> str | None:
    for name in (*node.inputs, *node.outputs):
        if amax.get(name, 0.0) > LARGEST_HALF:
            return f"tensor {name} reaches {amax[name]:.6g}, float16 ends at 65504"
    return None


def _vanishes(view: GraphView, node: Node, amax: Mapping[str, float]) -> str | None:
    """Below its smallest normal number float16 has no more than a few steps left, or none.

    A pair gives back what it takes, so that it and the layer behind it stay together.
    """
    names = [*node.inputs, *node.outputs]
    if node.op_type == DEQUANTIZE and (quantize := source(view, node)) is not None:
        names.append(quantize.inputs[0])
    for name in names:
        if 0.0 < amax.get(name, 0.0) < SMALLEST_HALF:
            return f"tensor {name} reaches {amax[name]:.3g} at most, float16 fades below 6.1e-05"
    return None


def _constants(view: GraphView, node: Node, amax: Mapping[str, float]) -> str | None:
    for index, name in enumerate(node.inputs):
        value = view.constant(name) if name and _is_float(view, name) else None
        finite = value[np.isfinite(value)] if value is not None else np.zeros(0)
        if finite.size == 0:
            continue  # infinities and NaN are the same in float16
        largest = float(np.abs(finite).max())
        if largest > LARGEST_HALF:
            return f"constant {name} reaches {largest:.6g}, float16 ends at 65504"
        error = constant_error(finite)
        if index == _BIAS and node.op_type in WEIGHTED_OPS:
            error = _beside(error, finite, amax.get(node.outputs[0], 0.0))
        if error > CONSTANT_ERROR:
            return f"constant {name} (up to {largest:.3g}) would change by {error:.1%} in float16"
    return None


def _beside(error: float, bias: NDArray[np.generic], output: float) -> float:
    """Of a bias, its largest change beside the largest output that was seen, if that is less.

    Biases of 1e-6 lose digits in float16 that nobody reads in outputs of 1, and an INT8 layer that
    keeps float32 for them runs in float32 on TensorRT-RTX 1.7.1.
    """
    if not output:
        return error
    return min(error, float(np.abs(_lost(bias)).max()) / output)


def constant_error(value: NDArray[np.generic]) -> float:
    """|c - half(c)| / |c| over a whole constant, Euclidean norms in float64; 0 for zeros."""
    norm = float(np.linalg.norm(np.asarray(value, np.float64)))
    return float(np.linalg.norm(_lost(value))) / norm if norm else 0.0


def _lost(value: NDArray[np.generic]) -> NDArray[np.float64]:
    """What float16 takes off each number of a constant."""
    exact = np.asarray(value, np.float64)
    with np.errstate(over="ignore"):
        return exact - exact.astype(np.float16).astype(np.float64)


def _vanishing_epsilon(node: Node) -> str | None:
    epsilon = node.attributes.get("epsilon")
    if isinstance(epsilon, float) and 0 < epsilon < float(np.finfo(np.float16).smallest_subnormal):
        return f"its epsilon {epsilon:.3g} vanishes in float16"
    return None


def _lengths(node: Node) -> str | None:
    """TensorRT-RTX 1.7.1: ISelectLayer must have inputs of same types but has Half and Float."""
    if node.op_type in RECURRENT_OPS and len(node.inputs) > 4 and node.inputs[4]:
        return "NVIDIA's parser reads it with sequence lengths in float32 only"
    return None


def _sensitive(view: GraphView, node: Node, amax: Mapping[str, float]) -> str | None:
    if node.op_type in _PARSED_IN_FLOAT:
        return _PARSED_IN_FLOAT[node.op_type]
    risk = HALF_RISKS.get(node.op_type)
    tensors = [n for n in (*node.inputs, *node.outputs) if n and not view.is_constant(n)]
    if risk is None or (risk != "index" and all(name in amax for name in tensors)):
        return None  # what was observed to fit needs no caution; positions have no range
    return _RISKS[risk]


def _from_integers(view: GraphView, node: Node) -> str | None:
    if node.op_type != "Cast":
        return None
    kind = view.element_type(node.inputs[0])
    floating = (TensorProto.BOOL, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    return None if kind in floating else _RISKS["index"]


def _is_float(view: GraphView, name: str) -> bool:
    return bool(name) and view.element_type(name) == TensorProto.FLOAT
