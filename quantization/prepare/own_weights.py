"""A weight that layers read in different ways becomes one constant for each way.

Tied layers share a weight (an autoencoder's Conv and ConvTranspose, a product and its transpose by
``transB``), but not the axis of their output channels, which scales and rounded codes go by.
"""

from __future__ import annotations

from onnx import GraphProto, NodeProto, TensorProto

from graphs.names import Names, stem
from graphs.operators import CONVOLUTION_OPS, WEIGHTED_OPS
from graphs.walk import attributes, constants, nodes, operator

__all__ = ["separate_weights"]

_Way = tuple[int, int]


def separate_weights(graph: GraphProto) -> bool:
    """Give each way of reading a weight its own constant; whether there was one to be given."""
    known = constants(graph)
    first: dict[str, _Way] = {}
    copies: dict[tuple[str, _Way], str] = {}
    for node in nodes(graph):
        for index, name in enumerate(node.input[:2]) if operator(node) in WEIGHTED_OPS else ():
            if name not in known:
                continue
            way = _way(node, index)
            if first.setdefault(name, way) == way:
                continue
            if (name, way) not in copies:
                tensor = TensorProto()
                tensor.CopyFrom(known[name])
                tensor.name = Names(graph).tensor(f"{name}_of_{stem(node)}")
                copies[name, way] = tensor.name
                graph.initializer.append(tensor)
            node.input[index] = copies[name, way]
    return bool(copies)


def _way(node: NodeProto, index: int) -> _Way:
    """Which operand it is, and on which axis its output channels lie."""
    if node.op_type in CONVOLUTION_OPS:
        return index, int(node.op_type == "ConvTranspose")
    flag = "transB" if index else "transA"
    transposed = node.op_type == "Gemm" and bool(attributes(node).get(flag, 0))
    return index, int(transposed == (index == 0))
