"""One type a layer: what multiplies takes all its scales in float16, or all in float32.

TensorRT-RTX 1.7.1 ends a build with "type mismatch between matmul operand scales" where the scale
of an activation is float32 and that of the weight float16; where it builds, one of them is
converted by a kernel of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from graphs.operators import WEIGHTED_OPS
from graphs.qdq import DEQUANTIZE, copies, source
from graphs.view import GraphView, Node

__all__ = ["layers_in_float"]


def layers_in_float(view: GraphView, kept: Collection[str]) -> dict[Node, str]:
    """Nodes that stay in float32 for the sake of a pair that does, with the reason.

    A layer that reads such a pair, its other pairs, what copies their values between, and the
    layers that read those pairs, too.

    Args:
        view: of a graph with Q/DQ.
        kept: names of nodes that stay in float32 by themselves.
    """
    served = {n: tuple(_pairs(view, n)) for n in view.nodes if n.op_type in WEIGHTED_OPS}
    found: dict[Node, str] = {}
    names = set(kept)
    grown = True
    while grown:
        grown = False
        for layer, nodes in served.items():
            scaled = [n for n in nodes if n.op_type == DEQUANTIZE and n.name in names]
            new = [n for n in (layer, *nodes) if n.name not in names] if scaled else []
            why = f"{layer.name} multiplies what {scaled[0].name} scales in float32" if new else ""
            found |= dict.fromkeys(new, why)
            names.update(node.name for node in new)
            grown = grown or bool(new)
    return found


def _pairs(view: GraphView, layer: Node) -> Iterator[Node]:
    """The Q/DQ nodes of both operands of a layer, and what copies their values to it."""
    pending, seen = list(layer.inputs[:2]), set[str]()
    while pending:
        node = view.producer(pending.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type == DEQUANTIZE:
            maker = source(view, node)
            yield from (node,) if maker is None else (node, maker)
        elif copies(node):
            yield node
            pending += node.inputs if node.op_type == "Concat" else node.inputs[:1]
