"""Sequences of tensors: pieces of a split are read with Slice, listed tensors joined with Concat.

TorchScript exports split, chunk, unbind and stack as sequences where a length is dynamic. TensorRT
has no sequences, and nothing in them can be calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from graphs.edit import replace_nodes
from graphs.names import Names, replacement, stem
from graphs.shapes import values
from graphs.walk import constants, is_default_domain, nodes, producers

__all__ = ["drop_sequences"]

_LONGEST = 1 << 32  # longer pieces are a damaged file's


def drop_sequences(model: ModelProto) -> bool:
    """Replace what reads a sequence whose pieces are known. Returns whether any was."""
    rewriter = _Rewriter(model)
    kept: list[NodeProto] = []
    for node in nodes(model):
        kept.extend(rewriter.replaced(node) or [node])
    if rewriter.changed:
        replace_nodes(model.graph, kept)
    return rewriter.changed


class _Rewriter:
    """What is known of the graph; nodes are made by their operator."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.known: dict[str, TensorProto] = constants(model.graph)
        self.values: dict[str, ValueInfoProto] = values(model)
        self.makers = producers(model.graph)
        self.names = Names(model.graph)
        self.changed = False

    def replaced(self, node: NodeProto) -> list[NodeProto]:
        """The nodes that do the same without a sequence; none where that is not known."""
        maker = self.makers.get(node.input[0]) if node.input else None
        if maker is None or not (is_default_domain(node) and is_default_domain(maker)):
            return []
        found: list[NodeProto] = []
        if node.op_type == "SequenceAt":
            place = self._integers(node, 1)
            index = None if place is None or place.size != 1 else int(place.flat[0])
            if index is not None and maker.op_type == "SplitToSequence":
                found = self._piece(node, maker, index)
            elif index is not None and maker.op_type == "SequenceConstruct":
                inside = -len(maker.input) <= index < len(maker.input)
                found = [self._node("Identity", [maker.input[index]], node)] if inside else []
        elif node.op_type == "ConcatFromSequence" and maker.op_type == "SequenceConstruct":
            found = self._joined(node, maker)
        self.changed |= bool(found)
        return found

    def _piece(self, node: NodeProto, split: NodeProto, index: int) -> list[NodeProto]:
        axis, bounds = _integer(split, "axis", 0), self._bounds(split, index)
        if bounds is None:
            return []
        limits = [
            self._constant(node, word, n) for word, n in zip(("start", "end"), bounds, strict=True)
        ]
        axes = self._constant(node, "axis", axis)
        piece = self._node("Slice", [split.input[0], *limits, axes], node)
        if _given(split, 1) or _integer(split, "keepdims", 1):
            return [piece]
        piece.output[0] = self.names.tensor(f"{node.output[0]}_piece")
        return [piece, self._node("Squeeze", [piece.output[0], axes], node)]

    def _bounds(self, split: NodeProto, index: int) -> tuple[int, int] | None:
        """First position of a piece and the one behind it; the last piece may be shorter."""
        lengths = self._integers(split, 1) if _given(split, 1) else np.array(1)
        if lengths is None or (lengths < 1).any() or (lengths > _LONGEST).any():
            return None
        if lengths.ndim:
            ends = np.cumsum(lengths)
            inside = -len(ends) <= index < len(ends)
            return (int(ends[index] - lengths[index]), int(ends[index])) if inside else None
        step, size = int(lengths), self._size(split.input[0], _integer(split, "axis", 0))
        if index < 0 and size is not None:
            index -= size // -step  # the number of pieces, rounded up
        inside = index >= 0 and (size is None or index * step < size)
        return (index * step, (index + 1) * step) if inside else None

    def _joined(self, node: NodeProto, maker: NodeProto) -> list[NodeProto]:
        axis, found = _integer(node, "axis", 0), []
        parts = list(maker.input)
        if _integer(node, "new_axis", 0):
            axes = self._constant(node, "axis", axis)
            for number, part in enumerate(maker.input):
                parts[number] = self.names.tensor(f"{node.output[0]}_part_{number}")
                found.append(
                    self.names.node(
                        "Unsqueeze",
                        [part, axes],
                        [parts[number]],
                        wanted=f"{stem(node)}_part_{number}",
                    )
                )
        return [*found, self._node("Concat", parts, node, axis=axis)]

    def _node(self, op_type: str, inputs: Sequence[str], of: NodeProto, **more: Any) -> NodeProto:
        return replacement(of, op_type, inputs, of.output, **more)

    def _integers(self, node: NodeProto, index: int) -> NDArray[np.int64] | None:
        name = node.input[index] if len(node.input) > index else ""
        tensor = self.known.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor).astype(np.int64)

    def _size(self, tensor: str, axis: int) -> int | None:
        value = self.values.get(tensor)
        dims = [] if value is None else list(value.type.tensor_type.shape.dim)
        known = -len(dims) <= axis < len(dims) and dims[axis].HasField("dim_value")
        return dims[axis].dim_value if known else None

    def _constant(self, node: NodeProto, word: str, number: int) -> str:
        name = self.names.tensor(f"{node.output[0]}_{word}")
        self.graph.initializer.append(numpy_helper.from_array(np.array([number], np.int64), name))
        return name


def _given(node: NodeProto, index: int) -> bool:
    return len(node.input) > index and bool(node.input[index])


def _integer(node: NodeProto, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)
