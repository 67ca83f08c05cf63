"""What an attention is: the Softmax, and the two products of activations around it."""

from __future__ import annotations

from collections.abc import Iterable

from graphs.operators import CONVOLUTION_OPS, SCORE_OPS
from graphs.view import GraphView, Node
from quantization.placement.walk import conv_partition, is_pass_through

__all__ = ["attention_softmax", "follows_softmax", "is_convolved", "pairs_of_products"]


def follows_softmax(view: GraphView, node: Node) -> bool:
    """Whether ``node`` is the product of probabilities and values."""
    return _softmax_before(view, node.inputs[0]) is not None


def attention_softmax(view: GraphView, node: Node) -> Node | None:
    """The Softmax that the MatMul of two activations ``node`` feeds or reads."""
    if node.op_type != "MatMul" or any(view.is_constant(name) for name in node.inputs):
        return None
    before = (_softmax_before(view, name) for name in node.inputs)
    return next(filter(None, before), None) or _softmax_after(view, node)


def is_convolved(view: GraphView, node: Node) -> bool:
    """Whether convolutions make all that an attention's product reads beside probabilities."""
    softmax = attention_softmax(view, node)
    reads = [_moved_from(view, name) for name in node.inputs]
    return softmax is not None and all(
        _from_convolution(view, x) or x in softmax.outputs for x in reads
    )


def pairs_of_products(view: GraphView, nodes: Iterable[Node]) -> tuple[tuple[Node, Node], ...]:
    """Q·Kᵀ and the product with V of each attention that has both among ``nodes``."""
    found: dict[str, list[Node]] = {}
    for node in nodes:
        softmax = attention_softmax(view, node)
        if softmax is not None:
            found.setdefault(softmax.name, []).append(node)
    return tuple((products[0], products[1]) for products in found.values() if len(products) == 2)


def _moved_from(view: GraphView, tensor: str) -> str:
    """The tensor above that only ops which move its values lie behind."""
    while (maker := view.producer(tensor)) is not None and is_pass_through(view, maker):
        tensor = maker.inputs[0]
    return tensor


def _from_convolution(view: GraphView, tensor: str) -> bool:
    layer = conv_partition(view, tensor)
    return layer is not None and layer.op_type in CONVOLUTION_OPS


def _softmax_before(view: GraphView, tensor: str) -> Node | None:
    """The Softmax whose values a tensor holds."""
    maker = view.producer(_moved_from(view, tensor))
    return maker if maker is not None and maker.op_type == "Softmax" else None


def _softmax_after(view: GraphView, node: Node) -> Node | None:
    """The Softmax reached from ``node`` through scaling, masking and reshapes."""
    between = SCORE_OPS | {"Max"}
    pending = [node]
    while pending:
        current = pending.pop()
        for use in view.uses(current.outputs[0]):
            if use.node.op_type == "Softmax":
                return use.node
            if use.node.op_type in between or is_pass_through(view, use.node):
                pending.append(use.node)
    return None
