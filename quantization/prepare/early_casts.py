"""Casts of what only moves pixels, in front of it: TensorRT reads bytes as inputs and casts them.

A picture of 8 bits whose axes are turned before it becomes float (``x.permute(0, 3, 1, 2) / 255``)
is refused by its parser, which knows no Transpose, Slice or Concat of uint8. Numbers that are moved
are the same before and after a cast.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto

from graphs.edit import replace_nodes
from graphs.names import Names
from graphs.qdq import moves_numbers
from graphs.shapes import values
from graphs.walk import attributes, nodes, operator, output_names, producers, readers

__all__ = ["move_casts"]

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})
_EXACT = _FLOATS | {TensorProto.INT32, TensorProto.INT64}
"""Types that hold each uint8, in the same order."""


def move_casts(model: ModelProto) -> bool:
    """Write casts of uint8 in front of what moves it, by one operator; whether any was.

    Args:
        model: changed in place; its types are inferred.
    """
    makers = _makers(model)
    if not makers:
        return False
    names, gone = Names(model.graph), {maker.output[0] for maker in makers.values()}
    kept: list[NodeProto] = []
    for node in nodes(model):
        if node.output[0] in makers:
            kept += _cast_first(node, makers[node.output[0]], names)
        elif node.output[0] not in gone:
            kept.append(node)
    replace_nodes(model.graph, kept)
    return True


def _makers(model: ModelProto) -> dict[str, NodeProto]:
    """Result of a cast → what moves bytes for it alone."""
    made = producers(model)
    found = {
        node.output[0]: maker
        for node in nodes(model)
        if operator(node) == "Cast"
        and (maker := made.get(node.input[0])) is not None
        and _moves(maker, node)
    }
    if not found:  # as in most models
        return found
    typed, read, outputs = values(model), readers(model), output_names(model.graph)

    def is_bytes_alone(name: str) -> bool:
        bytes_ = name in typed and typed[name].type.tensor_type.elem_type == TensorProto.UINT8
        return bytes_ and len(read[name]) == 1 and name not in outputs

    return {cast: maker for cast, maker in found.items() if is_bytes_alone(maker.output[0])}


def _moves(maker: NodeProto, cast: NodeProto) -> bool:
    """Whether a node moves numbers that are the same behind the cast; Resize is one of floats."""
    exact = _FLOATS if operator(maker) == "Resize" else _EXACT
    moved = moves_numbers(maker) and len(maker.output) == 1
    return moved and attributes(cast).get("to") in exact


def _cast_first(cast: NodeProto, maker: NodeProto, names: Names) -> list[NodeProto]:
    """The casts of what ``maker`` moves, and what makes the cast's result of them."""
    data = list(maker.input) if operator(maker) == "Concat" else list(maker.input[:1])
    casts = {
        name: names.node(
            "Cast",
            [name],
            [names.tensor(f"{name}_cast")],
            wanted=f"{cast.name}_{maker.name}",
            **attributes(cast),
        )
        for name in dict.fromkeys(data)
    }
    moving = NodeProto()
    moving.CopyFrom(maker)
    rest = list(maker.input[len(data) :])
    moving.input[:] = [*(casts[name].output[0] for name in data), *rest]
    moving.output[:] = cast.output
    return [*casts.values(), moving]
