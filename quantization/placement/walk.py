"""Ways through a graph that the rules share: ops that keep a range, paths between layers."""

from __future__ import annotations

import heapq
from collections.abc import Collection

import numpy as np

from graphs.operators import (
    AVERAGE_OPS,
    CONV_FUSED_OPS,
    CONVOLUTION_OPS,
    POINTWISE_OPS,
    POSITIVE_OPS,
    PRODUCT_OPS,
    RANGE_KEEPING_OPS,
    RESIZE_OPS,
    WEIGHTED_OPS,
)
from graphs.view import GraphView, Node
from quantization.placement.masked import discards_masks

__all__ = [
    "above",
    "conv_behind",
    "conv_partition",
    "is_pass_through",
    "joins_only_variables",
    "longer_path",
    "may_be_unsigned",
    "never_negative",
    "sources",
    "values_of",
]


def is_pass_through(view: GraphView, node: Node) -> bool:
    """Whether ``node`` hands on values of its first input and nothing larger."""
    if node.op_type not in RANGE_KEEPING_OPS or view.is_constant(node.inputs[0]):
        return False
    if node.op_type in RESIZE_OPS:
        return node.text("mode", "nearest") == "nearest"
    if node.op_type == "Pad":
        return _pads_with_own_values(view, node)
    return not discards_masks(view, node)


def values_of(node: Node, tensor: str) -> bool:
    """Whether ``tensor`` holds values of the input: not MaxPool's indices or Dropout's mask."""
    return node.op_type == "Split" or tensor == node.outputs[0]


def _pads_with_own_values(view: GraphView, node: Node) -> bool:
    """Whether the padding is zero or copied from the input; -inf or 114 would set the range."""
    if node.text("mode", "constant") != "constant":
        return True
    value = node.inputs[2] if len(node.inputs) > 2 else ""
    constant = view.constant(value) if value else np.zeros(1)
    return constant is not None and not np.any(constant)


def joins_only_variables(view: GraphView, node: Node) -> bool:
    """Whether ``node`` is a Concat without constant inputs, whose range nobody observes."""
    return node.op_type == "Concat" and not any(view.is_constant(name) for name in node.inputs)


def sources(
    view: GraphView,
    tensor: str,
    known: dict[str, tuple[str, ...]] | None = None,
    *,
    apart: Collection[str] = (),
) -> tuple[str, ...]:
    """The tensors whose values ``tensor`` consists of, looking up through pass-through and Concat.

    One name for everything but a Concat of different tensors: (conv1, conv2) for
    ``Reshape(Concat(conv1, MaxPool(conv2)))``.

    Args:
        view: the graph.
        tensor: where to start.
        known: answers so far, read and added to: chains are walked once, not once a node.
        apart: names of Concats whose inputs keep scales of their own; nothing is above them.
    """
    known = {} if known is None else known
    passed = [tensor]  # up to the first Concat all have the same sources
    while passed[-1] not in known and len(up := above(view, passed[-1], apart)) == 1:
        passed.append(up[0])
    top = passed[-1]
    found: dict[str, None] = dict.fromkeys(known.get(top, ()))
    pending, seen = ([] if top in known else [top]), set[str]()
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            up = above(view, name, apart)
            pending.extend(reversed(up))
            found.update({} if up else {name: None})
    known.update(dict.fromkeys(passed, tuple(found)))
    return tuple(found)


def above(view: GraphView, tensor: str, apart: Collection[str] = ()) -> tuple[str, ...]:
    """What ``tensor`` takes its values from: nothing, one tensor, or those that a Concat joins."""
    node = view.producer(tensor)
    if node is not None and joins_only_variables(view, node):
        return () if node.name in apart else node.inputs
    if node is not None and values_of(node, tensor) and is_pass_through(view, node):
        return node.inputs[:1]
    return ()


def never_negative(view: GraphView, tensor: str) -> bool:
    """Whether no sample can make a value of ``tensor`` negative: behind ReLU, Softmax, ...

    Looks up through ops that keep the sign; a Concat needs all its inputs so.
    """
    pending, seen = [tensor], set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        node = view.producer(name)
        if node is None:
            return False
        if node.op_type in POSITIVE_OPS or _clips_at_zero(view, node):
            continue
        if node.op_type in AVERAGE_OPS:
            pending.append(node.inputs[0])
        elif node.op_type == "Concat":
            if any(_has_negative(view, name) for name in node.inputs):
                return False
            pending.extend(name for name in node.inputs if not view.is_constant(name))
        elif is_pass_through(view, node):
            pending.append(node.inputs[0])
        else:
            return False
    return True


def may_be_unsigned(view: GraphView, tensor: str) -> bool:
    """Whether no value is negative and no product of two activations reads it on the right.

    OpenVINO multiplies unsigned by signed bytes; two unsigned factors run in float.
    """
    pending, seen = [tensor], {tensor}
    while pending:
        for use in view.uses(pending.pop()):
            if use.node.op_type in PRODUCT_OPS and use.index == 1:
                return False
            if use.node.op_type == "Concat" or is_pass_through(view, use.node):
                pending += [name for name in use.node.outputs if name not in seen]
                seen.update(use.node.outputs)
    return never_negative(view, tensor)


def _has_negative(view: GraphView, name: str) -> bool:
    """Whether ``name`` is a constant with a value below zero."""
    value = view.constant(name)
    return value is not None and bool(np.min(value, initial=0) < 0)


def _clips_at_zero(view: GraphView, node: Node) -> bool:
    """Whether ``node`` is a Clip whose lower bound is 0 or more, as in ReLU6."""
    if node.op_type != "Clip" or len(node.inputs) < 2 or not node.inputs[1]:
        return False
    low = view.constant(node.inputs[1])
    return low is not None and float(low.min(initial=0.0)) >= 0


def conv_behind(view: GraphView, tensor: str) -> Node | None:
    """The Conv that ``tensor`` comes from through what TensorRT fuses behind it, else None.

    Bias Add, constant Mul, BatchNormalization, ReLU and its kin, SiLU and MaxPool are looked
    through, a two-input Add is not.
    """
    while (node := view.producer(tensor)) is not None:
        if node.op_type in CONVOLUTION_OPS:
            return node
        variable = [name for name in node.inputs if name and not view.is_constant(name)]
        if node.op_type in CONV_FUSED_OPS or (
            node.op_type in ("Add", "Mul") and len(variable) == 1
        ):
            tensor = variable[0] if variable else ""
        elif (gated := _self_gated(view, node)) is not None:
            tensor = gated
        else:
            return None
    return None


def _self_gated(view: GraphView, node: Node) -> str | None:
    """The x of ``x * sigmoid(x)`` (SiLU) or ``x * hard_sigmoid(x)`` (HardSwish)."""
    if node.op_type == "HardSwish":
        return node.inputs[0]
    if node.op_type != "Mul" or len(node.inputs) != 2:
        return None
    for x, gate in (node.inputs, node.inputs[::-1]):
        maker = view.producer(gate)
        if maker and maker.op_type in ("Sigmoid", "HardSigmoid") and maker.inputs[0] == x:
            return x
    return None


def conv_partition(view: GraphView, tensor: str) -> Node | None:
    """The weighted layer whose fused kernel may write ``tensor``, else None.

    Like :func:`conv_behind`, and through any pointwise op with one variable input.
    """
    while (node := view.producer(tensor)) is not None:
        if node.op_type in WEIGHTED_OPS:
            return node
        variable = [name for name in node.inputs if name and not view.is_constant(name)]
        if (gated := _self_gated(view, node)) is not None:
            tensor = gated
        elif node.op_type in POINTWISE_OPS | CONV_FUSED_OPS and len(variable) == 1:
            tensor = variable[0]
        else:
            return None
    return None


def longer_path(view: GraphView, first: str, second: str) -> tuple[int, str | None]:
    """Which of two tensors is farther from the lowest node both come from.

    Returns:
        0 or 1 (ties: 1), and the name of that common node; None if the paths never meet.
    """
    distances: list[dict[int, int]] = [{}, {}]
    pending: list[int] = []  # positions, negated: the last node of the graph comes first

    def reach(side: int, tensor: str, length: int) -> None:
        node = view.producer(tensor)
        if node is not None:
            if not any(node.position in known for known in distances):
                heapq.heappush(pending, -node.position)
            known = distances[side]
            known[node.position] = max(length, known.get(node.position, 0))

    reach(0, first, 0)
    reach(1, second, 0)
    while pending:
        position = -heapq.heappop(pending)
        lengths = [known.get(position) for known in distances]
        if lengths[0] is not None and lengths[1] is not None:
            return (0 if lengths[0] > lengths[1] else 1), view.nodes[position].name
        side = 0 if lengths[0] is not None else 1
        for name in filter(None, view.nodes[position].inputs):
            reach(side, name, (lengths[side] or 0) + 1)
    farthest = [max(known.values(), default=-1) for known in distances]
    return (0 if farthest[0] > farthest[1] else 1), None
