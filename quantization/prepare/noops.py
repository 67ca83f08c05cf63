"""No-ops: nodes whose output is their input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    numpy_helper,
)

from graphs.edit import rename_tensor, replace_nodes, rewire
from graphs.shapes import static_shape, values
from graphs.walk import attributes, constants, is_default_domain, nodes, output_names, producers
from quantization.prepare.transposes import merge_transposes

__all__ = ["drop_noops"]


def drop_noops(model: ModelProto) -> bool:
    """Remove nodes that change nothing. Returns whether any was removed."""
    graph = model.graph
    changed = merge_transposes(graph)
    view = _View(model)
    outputs = output_names(graph)
    aliases: dict[str, str] = {}
    kept: list[NodeProto] = []
    ends: list[NodeProto] = []
    for node in nodes(graph):
        rule = _RULES.get(node.op_type)
        if not (rule and is_default_domain(node) and rule(node, view)):
            kept.append(node)
        elif node.output[0] in outputs:
            kept.append(node)
            ends.append(node)
        else:
            aliases[node.output[0]] = aliases.get(node.input[0], node.input[0])
    rewire(graph, aliases)
    gone = [node for node in ends if _take_name(graph, node, outputs)]
    if aliases or gone:
        replace_nodes(graph, [node for node in kept if not any(node is g for g in gone)])
        changed = True
    return changed


def _take_name(graph: GraphProto, node: NodeProto, outputs: set[str]) -> bool:
    """Give the input of a node that makes a graph output that output's name.

    False where it cannot be: an output needs a node that makes it, and has one name.
    """
    source, target = node.input[0], node.output[0]
    if source in outputs or source not in producers(graph):
        return False
    node.output[0] = f"{target}//dropped"
    rename_tensor(graph, source, target)
    return True


class _View:
    """What the rules ask about a graph."""

    def __init__(self, model: ModelProto) -> None:
        self.constants = constants(model.graph)
        self.values = values(model)

    def value(self, node: NodeProto, index: int) -> Any:
        """A constant input as an array; None where absent or not constant."""
        name = node.input[index] if len(node.input) > index else ""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def type_of(self, name: str) -> int:
        """Element type of a tensor, 0 where unknown."""
        if name in self.constants:
            return self.constants[name].data_type
        value = self.values.get(name)
        return 0 if value is None else value.type.tensor_type.elem_type

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Fixed shape of a tensor, None where it is not."""
        return static_shape(self.values.get(name))

    def rank(self, name: str) -> int:
        """Number of dimensions of a tensor, 0 where unknown."""
        value = self.values.get(name)
        return 0 if value is None else len(value.type.tensor_type.shape.dim)


def _always(node: NodeProto, view: _View) -> bool:
    return True


def _dropout(node: NodeProto, view: _View) -> bool:
    """Inference mode, and nobody reads the mask."""
    if len(node.output) > 1 and node.output[1]:
        return False
    if len(node.input) < 3 or not node.input[2]:
        return True
    training = view.value(node, 2)
    return training is not None and not training.any()


def _cast(node: NodeProto, view: _View) -> bool:
    return bool(view.type_of(node.input[0]) == attributes(node).get("to"))


def _pad(node: NodeProto, view: _View) -> bool:
    pads = view.value(node, 1)
    return pads is not None and not pads.any()


def _same_shape(node: NodeProto, view: _View) -> bool:
    shape = view.shape(node.input[0])
    return shape is not None and shape == view.shape(node.output[0])


def _transpose(node: NodeProto, view: _View) -> bool:
    order = list(attributes(node).get("perm", ()))
    return bool(order) and order == list(range(len(order)))


def _single(node: NodeProto, view: _View) -> bool:
    return len(node.input) == 1


def _slice(node: NodeProto, view: _View) -> bool:
    """All of every axis, in the order it had."""
    steps = view.value(node, 4)
    forward = len(node.input) < 5 or not node.input[4] or (steps is not None and (steps == 1).all())
    return bool(forward) and _same_shape(node, view)


def _neutral(number: float) -> Callable[[NodeProto, _View], bool]:
    """The other input is a constant scalar that changes nothing."""

    def rule(node: NodeProto, view: _View) -> bool:
        other = view.value(node, 1)
        if other is None or other.size != 1 or not (other == number).all():
            return False
        return bool(other.ndim == 0 or view.rank(node.input[0]) >= other.ndim)

    return rule


def _pool(node: NodeProto, view: _View) -> bool:
    """A 1×1 window with stride 1 and no padding, and nobody reads the indices."""
    given = attributes(node)
    numbers = [
        *given.get("kernel_shape", (2,)),
        *given.get("strides", ()),
        *given.get("dilations", ()),
    ]
    plain = all(number == 1 for number in numbers) and not any(given.get("pads", ()))
    return plain and len([name for name in node.output if name]) == 1


_RULES: dict[str, Callable[[NodeProto, _View], bool]] = {
    "Add": _neutral(0),
    "AveragePool": _pool,
    "Cast": _cast,
    "Concat": _single,
    "Div": _neutral(1),
    "Dropout": _dropout,
    "Expand": _same_shape,
    "Flatten": _same_shape,
    "Identity": _always,
    "Max": _single,
    "MaxPool": _pool,
    "Mean": _single,
    "Min": _single,
    "Mul": _neutral(1),
    "Pad": _pad,
    "Reshape": _same_shape,
    "Slice": _slice,
    "Squeeze": _same_shape,
    "Sub": _neutral(0),
    "Sum": _single,
    "Tile": _same_shape,
    "Transpose": _transpose,
    "Unsqueeze": _same_shape,
}
