"""Activations as the runtime holds them, in blocks of channels: the order that values lie in.

onnxruntime's convolutions for the CPU keep the channels of a tensor in blocks, and a node puts
them back into ONNX's order for whoever reads the tensor otherwise. Where only the statistics do,
that is a copy of every activation for nothing: they are the same in any order.
"""

from __future__ import annotations

from collections import Counter

import onnx

from graphs.edit import rename_tensor, replace_nodes
from graphs.walk import nodes, readers

__all__ = ["as_held"]

_LARGEST_BLOCK = 16  # channels; fewer of them are filled up, with values that nobody computed


def as_held(optimized: onnx.ModelProto) -> bool:
    """Let outputs be what onnxruntime holds, in a model that it has optimized; whether any are.

    Args:
        optimized: is changed. Its outputs keep names and number of values, not their order; along
            the axis of the batch, which no block spans, all stays where it is.
    """
    outputs = {value.name for value in optimized.graph.output}
    read = readers(optimized)
    put_back = [
        node
        for node in nodes(optimized)
        if node.op_type == "ReorderOutput" and node.output[0] in outputs
    ]
    sources = Counter(node.input[0] for node in put_back)
    gone = {
        node.output[0]: node.input[0]
        for node in put_back
        if node.output[0] not in read
        and sources[node.input[0]] == 1
        and node.input[0] not in outputs
        and _channels(node) % _LARGEST_BLOCK == 0
    }
    if not gone:
        return False
    replace_nodes(
        optimized.graph, [node for node in nodes(optimized) if node.output[0] not in gone]
    )
    for name, held in gone.items():
        rename_tensor(optimized.graph, held, name)
    for value in optimized.graph.output:
        if value.name in gone:
            value.type.tensor_type.ClearField("shape")
    return True


def _channels(node: onnx.NodeProto) -> int:
    found = [entry.i for entry in node.attribute if entry.name == "channels"]
    return found[0] if found else 1
