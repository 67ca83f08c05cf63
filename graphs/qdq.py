"""What a QuantizeLinear or DequantizeLinear says (scale, zero point, axis), and its partner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from graphs.operators import CODE_COPYING_OPS
from graphs.view import GraphView, Node
from graphs.walk import attributes, operator

__all__ = [
    "DEQUANTIZE",
    "DEQUANTIZES",
    "QUANTIZE",
    "QUANTIZES",
    "Parameters",
    "copies",
    "dequantizer",
    "is_quantized",
    "moves_numbers",
    "parameters",
    "source",
]

QUANTIZE = "QuantizeLinear"
DEQUANTIZE = "DequantizeLinear"
QUANTIZES = (QUANTIZE, f"com.microsoft.{QUANTIZE}")
DEQUANTIZES = (DEQUANTIZE, f"com.microsoft.{DEQUANTIZE}")
"""The same in onnxruntime's own domain, too."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Parameters of one Q or DQ.

    Attributes:
        scale: constant scale in its own type, () or (C,); None where it is computed.
        zero_point: constant zero point, zeros where the node has none; None where computed.
        data_type: ONNX type of the codes, e.g. ``TensorProto.INT8``; 0 where unknown.
        axis: of the channels; meaningful where ``scale`` is not a scalar.
        implied: whether the type is only ONNX's default, because no zero point is given.
    """

    scale: NDArray[Any] | None
    zero_point: NDArray[Any] | None
    data_type: int
    axis: int
    implied: bool = False

    @property
    def per_channel(self) -> bool:
        """Whether there is more than one scale."""
        return self.scale is not None and self.scale.size > 1


def parameters(view: GraphView, node: Node) -> Parameters:
    """Parameters of a QuantizeLinear or DequantizeLinear."""
    scale = view.constant(node.inputs[1])
    zero_name = node.inputs[2] if len(node.inputs) > 2 else ""
    zero_point = view.constant(zero_name) if zero_name else np.zeros((), np.int8)
    data_type, implied = 0, False
    if zero_name:
        data_type = view.element_type(zero_name)
    elif node.op_type == DEQUANTIZE:
        data_type = view.element_type(node.inputs[0])
    else:
        data_type = node.integer("output_dtype", 0)
        implied = not data_type
        data_type = data_type or TensorProto.UINT8
    return Parameters(
        scale=scale,
        zero_point=zero_point,
        data_type=data_type,
        axis=node.integer("axis", 1),
        implied=implied,
    )


def copies(node: Node) -> bool:
    """Whether an operator moves numbers without computing on them, so codes as well."""
    return moves_numbers(node.proto)


def moves_numbers(node: NodeProto) -> bool:
    """The same of a node as it is stored."""
    if operator(node) == "Resize":
        return bool(attributes(node).get("mode", b"nearest") == b"nearest")
    return operator(node) in CODE_COPYING_OPS


def dequantizer(view: GraphView, tensor: str) -> Node | None:
    """The DequantizeLinear that makes ``tensor``."""
    node = view.producer(tensor)
    return node if node is not None and node.op_type == DEQUANTIZE else None


def is_quantized(view: GraphView, tensor: str) -> bool:
    """Whether a tensor comes from a DequantizeLinear, through operators that it can move over."""
    todo, seen = [tensor], {tensor}
    while todo:
        node = view.producer(todo.pop())
        if node is None or not (copies(node) or node.op_type == DEQUANTIZE):
            return False
        if node.op_type != DEQUANTIZE:
            before = set(node.inputs if node.op_type == "Concat" else node.inputs[:1]) - seen
            seen |= before
            todo.extend(before)
    return True


def source(view: GraphView, node: Node) -> Node | None:
    """The QuantizeLinear whose codes a DequantizeLinear reads, through copies of them."""
    maker = view.producer(node.inputs[0])
    while maker is not None and copies(maker):
        maker = view.producer(maker.inputs[0])
    return maker if maker is not None and maker.op_type == QUANTIZE else None
