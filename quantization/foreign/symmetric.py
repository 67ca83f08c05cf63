"""Codes and zero points made symmetric, where the numbers stay exactly what they were.

uint8 with zero point 128 and int8 with zero point 0 name the same numbers: ``c - 128`` is the code,
and both saturate at the same two ends (ONNX QuantizeLinear adds the zero point after rounding).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from graphs.edit import GraphEditor, set_attribute
from graphs.operators import PAIR_OPS
from graphs.qdq import DEQUANTIZE, copies, parameters
from graphs.view import GraphView, Node
from quantization.foreign.constants import along

__all__ = [
    "Changes",
    "make_symmetric",
]

_INTEGER8 = (TensorProto.INT8, TensorProto.UINT8)


@dataclass(kw_only=True)
class Changes:
    """What ``make_symmetric`` did and could not do.

    Attributes:
        shifted: nodes that were uint8 with zero point 128.
        recoded: constants whose codes moved by their zero point and still fit int8.
        refused: node name → what it has, for those that cannot be converted exactly.
    """

    shifted: int = 0
    recoded: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def make_symmetric(model: ModelProto) -> Changes:
    """Give every 8-bit Q and DQ zero point 0 and type int8, in place, where that is exact.

    Nothing is changed where anything is refused.
    """
    view = GraphView(model)
    changes = Changes()
    edits: list[tuple[Node, NDArray[Any] | None]] = []
    for node in view.nodes:
        if node.op_type not in PAIR_OPS:
            continue
        found = parameters(view, node)
        if found.data_type not in _INTEGER8 or found.zero_point is None:
            if found.data_type in (TensorProto.INT16, TensorProto.UINT16) or not found.data_type:
                changes.refused[node.name] = TensorProto.DataType.Name(found.data_type).lower()
            continue
        zero = found.zero_point.astype(np.int64)
        if found.data_type == TensorProto.INT8 and not zero.any():
            continue
        codes = _recoded(view, node, zero, found.axis)
        if codes is not None:
            changes.recoded += 1
        elif found.data_type == TensorProto.UINT8 and (zero == 128).all():
            if _leaves(view, node):
                changes.refused[node.name] = "uint8 codes are an input or output of the graph"
            changes.shifted += 1
        else:
            changes.refused[node.name] = _what(found.data_type, zero)
        edits.append((node, codes))
    if not changes.refused:
        editor = GraphEditor(model)
        for node, codes in edits:
            _edit(editor, view, node, codes)
        _drop_stale_types(model, view)
    return changes


def _recoded(
    view: GraphView, node: Node, zero: NDArray[np.int64], axis: int
) -> NDArray[np.int8] | None:
    """Codes of a constant with their zero point taken off, where they fit int8."""
    codes = view.constant(node.inputs[0]) if node.op_type == DEQUANTIZE else None
    if codes is None:
        return None
    moved = codes.astype(np.int64) - along(zero, codes, axis)
    fits = moved.size == 0 or (moved.min() >= -128 and moved.max() <= 127)
    return moved.astype(np.int8) if fits else None


def _leaves(view: GraphView, node: Node) -> bool:
    """Whether codes of a Q or DQ are an input or output of the graph, or read by other nodes."""
    if node.op_type == DEQUANTIZE:
        return node.inputs[0] in view.inputs
    todo, seen = [node.outputs[0]], set()
    while todo:
        name = todo.pop()
        if name in view.read_outside:
            return True
        for use in view.uses(name):
            if not copies(use.node):
                if use.node.op_type != DEQUANTIZE:
                    return True
            elif use.node.name not in seen:
                seen.add(use.node.name)
                todo.extend(use.node.outputs)
    return False


def _edit(editor: GraphEditor, view: GraphView, node: Node, codes: NDArray[Any] | None) -> None:
    """New zero point, and new codes where they are constant."""
    found = parameters(view, node)
    shape = () if found.scale is None else found.scale.shape
    zero = editor.constant(f"{node.outputs[0]}//zero", np.zeros(shape, np.int8))
    editor.redirect(node, 2, zero)
    if codes is not None:
        editor.redirect(node, 0, editor.constant(f"{node.outputs[0]}//codes", codes))
    set_attribute(editor.node(node), "output_dtype", None)


def _drop_stale_types(model: ModelProto, view: GraphView) -> None:
    """Forget what the file says of tensors of codes: their type has changed."""
    kept = [v for v in model.graph.value_info if view.element_type(v.name) != TensorProto.UINT8]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)


def _what(data_type: int, zero: NDArray[np.int64]) -> str:
    points = ", ".join(str(value) for value in np.unique(zero)[:3])
    return f"{TensorProto.DataType.Name(data_type).lower()} with zero point {points}"
