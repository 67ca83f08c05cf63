"""Optional outputs that nobody reads: the indices of a MaxPool, the mean of a LayerNormalization.

Exporters name them whether or not they are wanted, and TensorRT's parser refuses both.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, defs

from graphs.opset import opset_of
from graphs.walk import is_default_domain, nodes, output_names, readers

__all__ = ["drop_unread_outputs"]

_TRAINED_BY_OUTPUTS = frozenset({"BatchNormalization"})  # before opset 14 they mean training


def drop_unread_outputs(model: ModelProto) -> bool:
    """Take optional outputs behind the first off their nodes; whether there were any.

    Args:
        model: changed in place.
    """
    read, changed = {*readers(model), *output_names(model.graph)}, False
    opset = opset_of(model)
    for node in nodes(model):
        if len(node.output) < 2 or not is_default_domain(node):
            continue
        kept = [*node.output]
        for index in _optional(node, opset):
            kept[index] = kept[index] if kept[index] in read else ""
        while not kept[-1]:
            kept.pop()
        changed |= kept != [*node.output]
        node.output[:] = kept
    return changed


def _optional(node: NodeProto, opset: int) -> list[int]:
    """Places of outputs that may be left out."""
    if node.op_type in _TRAINED_BY_OUTPUTS or not defs.has(node.op_type):
        return []
    schema = defs.get_schema(node.op_type, opset)
    optional = defs.OpSchema.FormalParameterOption.Optional
    places = zip(range(1, len(node.output)), schema.outputs[1:], strict=False)
    return [index for index, output in places if output.option == optional]
