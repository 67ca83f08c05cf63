"""Lint rules for what TensorRT's parser takes and its builder does not: no parser says so.

Each yields (node, what was found).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from graphs.bodies import standing_alone
from graphs.view import GraphView, Node, Shape
from graphs.walk import subgraphs

__all__ = ["RTX_UNBUILT_OPS", "changing_rank", "growing_state", "many_chosen", "missing_kernel"]

Found = Iterator[tuple[Node, str]]

# The builder of TensorRT-RTX 1.7.1: "has no runners that implement it".
RTX_UNBUILT_OPS = frozenset({"NonMaxSuppression"})
MOST_CHOSEN = 3840  # ITopKLayer: "K exceeds the maximum value allowed"
_BEFORE_STATES = 2  # inputs of a Loop: count and condition


def missing_kernel(view: GraphView) -> Found:
    """Operators that TensorRT-RTX parses and does not build."""
    for node in view.nodes:
        if node.op_type in RTX_UNBUILT_OPS:
            yield node, node.op_type


def many_chosen(view: GraphView) -> Found:
    """TopK of more values than its kernels sort."""
    for node in view.nodes:
        if node.op_type != "TopK":
            continue
        # Up to opset 9 it is an attribute.
        told = view.constant(node.inputs[1]) if len(node.inputs) > 1 else None
        count = np.asarray(node.integer("k", 0)) if told is None else told
        if (count > MOST_CHOSEN).any():
            yield node, f"TopK of {np.max(count)}"


def changing_rank(view: GraphView) -> Found:
    """Results that have another number of axes for other inputs."""
    for node in view.nodes:
        if node.op_type == "Squeeze" and not any(node.inputs[1:]):
            shape = view.shape(node.inputs[0])
            if shape is not None and None in shape:
                sizes = ", ".join("?" if size is None else str(size) for size in shape)
                yield node, f"Squeeze without axes of shape [{sizes}]"
        elif node.op_type == "If":
            shapes = [_shapes(standing_alone(view, body)) for body in subgraphs(node.proto)]
            for pair in zip(*shapes, strict=False):
                ranks = [len(shape) for shape in pair if shape is not None]
                if len(ranks) == len(shapes) and len(set(ranks)) > 1:
                    yield node, f"If of branches with {' and '.join(map(str, ranks))} axes"
        elif node.op_type == "Loop":
            for before, after in _states(view, node):
                if len(before) != len(after):
                    yield node, f"Loop whose state has {len(before)} axes, then {len(after)}"


def growing_state(view: GraphView) -> Found:
    """States of a Loop that come out of its body in another size."""
    for node in view.nodes:
        for before, after in _states(view, node) if node.op_type == "Loop" else ():
            pairs = zip(before, after, strict=False)
            if len(before) == len(after) and any(b not in (a, None) and a for b, a in pairs):
                yield node, "Loop whose state has another size after each turn"


def _states(view: GraphView, node: Node) -> Iterator[tuple[Shape, Shape]]:
    """Shape of each state before the body and behind it, of nominal sizes."""
    (body,) = subgraphs(node.proto)
    alone = standing_alone(view, body)
    starts = node.inputs[_BEFORE_STATES:]
    shapes = [None if view.shape(name) is None else view.nominal_shape(name) for name in starts]
    values = alone.graph.input[_BEFORE_STATES:]
    for value, name, shape in zip(values, starts, shapes, strict=False):
        kind = view.element_type(name)
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, shape))
    for value in alone.graph.output:
        value.type.tensor_type.ClearField("shape")
    for before, after in zip(shapes, _shapes(alone)[1:], strict=False):
        if before is not None and after is not None:
            yield before, after


def _shapes(body: onnx.ModelProto) -> list[Shape | None]:
    view = GraphView(body)
    return [view.shape(name) for name in view.outputs]
