"""Casts of what only moves pixels, in front of it: TensorRT reads bytes as inputs and casts them.

A picture of 8 bits whose axes are turned before it becomes float (``x.permute(0, 3, 1, 2) / 255``)
is refused by its parser, which knows no Transpose, Slice or Concat of uint8. Numbers that are moved
are the same before and after a cast.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto

from graphs.edit import replace_nodes
from graphs.names import Names
from graphs.operators import CODE_COPYING_OPS
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
    typed, made, read = values(model), producers(model), readers(model)
    outputs, names = output_names(model.graph), Names(model.graph)

    def moved(cast: NodeProto) -> NodeProto | None:
        """What moves the bytes for this cast alone."""
        source = cast.input[0] if cast.input else ""
        maker = made.get(source)
        if maker is None or not _moves(maker, cast) or len(maker.output) > 1:
            return None
        pixels = source in typed and typed[source].type.tensor_type.elem_type == TensorProto.UINT8
        alone = len(read.get(source, ())) == 1 and source not in outputs
        return maker if pixels and alone else None

    kept: list[NodeProto] = []
    gone: set[str] = set()
    for node in nodes(model):
        maker = moved(node) if operator(node) == "Cast" else None
        if maker is None:
            kept.append(node)
        else:
            kept += _cast_first(node, maker, names)
            gone.add(maker.output[0])
    if gone:
        replace_nodes(model.graph, [node for node in kept if node.output[0] not in gone])
    return bool(gone)


def _moves(maker: NodeProto, cast: NodeProto) -> bool:
    """Whether a node moves numbers that are the same behind the cast; Resize is one of floats."""
    kind = attributes(cast).get("to")
    if operator(maker) == "Resize":
        return kind in _FLOATS and attributes(maker).get("mode", b"nearest") == b"nearest"
    return kind in _EXACT and operator(maker) in CODE_COPYING_OPS


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
