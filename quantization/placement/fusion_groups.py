"""What is quantized or left in float as one: a weighted layer and what TensorRT fuses with it.

A Conv-Add-ReLU is one kernel: leaving the Conv in float and the Add's other input in INT8 would
split it and add reformats. So the unit of every decision is the layer with the Q/DQ edges of the
nodes behind it in its kernel (rule 24 of the placement guide, tensorrt.md section 5), and of the
nodes before it that move what it alone reads. The two products of an attention are one kernel of
TensorRT's, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass

from graphs.macs import macs
from graphs.qdq import copies
from graphs.view import GraphView, Node
from quantization.placement import Floating, Placement
from quantization.placement.attention import pairs_of_products
from quantization.placement.walk import conv_partition

__all__ = ["Group", "fusion_groups", "leave_float", "only"]


@dataclass(frozen=True, kw_only=True)
class Group:
    """One unit of decision.

    Attributes:
        name: of its weighted layer, of an attention's first; of its node where it has none (a lone
            pooling or Resize).
        op_type: of that node.
        nodes: names of all nodes that read Q/DQ edges in it.
        position: of its first node in the graph.
        macs: multiply-accumulates of one sample.
    """

    name: str
    op_type: str
    nodes: tuple[str, ...]
    position: int
    macs: int


def fusion_groups(view: GraphView, placement: Placement) -> tuple[Group, ...]:
    """The groups of a placement, in graph order."""
    nodes = {node.name: node for node in view.nodes}
    members: dict[str, list[Node]] = {}
    readers = (*(w.node for w in placement.weights), *(e.node for e in placement.activations))
    quantized = {(e.node, e.index) for e in placement.activations}
    weighted = set(placement.int8_nodes)
    first = _first_products(view, placement)
    for name in dict.fromkeys(readers):
        node = nodes[name]
        root = node if name in weighted else _root(view, node, quantized, weighted)
        root = first.get(root.name, root)
        members.setdefault(root.name, []).append(node)
    groups = [
        Group(
            name=name,
            op_type=nodes[name].op_type,
            nodes=tuple(node.name for node in sorted(found, key=lambda n: n.position)),
            position=min(node.position for node in found),
            macs=sum(macs(n, view.nominal_shape) for n in found if n.name in weighted),
        )
        for name, found in members.items()
    ]
    return tuple(sorted(groups, key=lambda group: group.position))


def leave_float(
    placement: Placement, groups: Iterable[Group], *, why: str, rule: str = "search"
) -> Placement:
    """The placement without some groups; ``rule`` and ``why`` are said of their layers."""
    released = tuple(groups)
    left = {name for group in released for name in group.nodes}
    kept = _restricted(placement, lambda name: name not in left)
    weighted = set(placement.int8_nodes)
    floating = tuple(
        Floating(node=name, op_type=group.op_type, rule=rule, why=why)
        for group in released
        for name in group.nodes
        if name in weighted
    )
    return dataclasses.replace(kept, floating=(*placement.floating, *floating))


def only(placement: Placement, group: Group) -> Placement:
    """The placement of one group alone."""
    members = set(group.nodes)
    return _restricted(placement, lambda name: name in members)


def _first_products(view: GraphView, placement: Placement) -> dict[str, Node]:
    """An attention's second product → its first, where one kernel computes both."""
    if placement.profile != "tensorrt":
        return {}
    weighted = set(placement.int8_nodes)
    products = (node for node in view.nodes if node.name in weighted)
    return {second.name: first for first, second in pairs_of_products(view, products)}


def _root(view: GraphView, node: Node, quantized: Set[tuple[str, int]], weighted: Set[str]) -> Node:
    """The layer in whose kernel ``node`` runs, or that alone reads what it moves; else itself.

    It runs in that of the layer which makes its float input.
    """
    for index, name in enumerate(node.inputs):
        if (node.name, index) not in quantized and not view.is_constant(name):
            layer = conv_partition(view, name)
            if layer is not None and layer.name in weighted:
                return layer
    return _only_layer_behind(view, node, weighted) or node


def _only_layer_behind(view: GraphView, node: Node, weighted: Set[str]) -> Node | None:
    """The layer that alone reads what ``node`` moves, if it moves and one does."""
    found: dict[str, Node] = {}
    pending = [node] if copies(node) else []
    while pending:
        for use in [use for name in pending.pop().outputs for use in view.uses(name)]:
            if use.node.name in weighted:
                found[use.node.name] = use.node
            elif copies(use.node):
                pending.append(use.node)
            else:
                return None
    return next(iter(found.values())) if len(found) == 1 else None


def _restricted(placement: Placement, keep: Callable[[str], bool]) -> Placement:
    """The part of a placement that nodes with a kept name read."""
    activations = tuple(edge for edge in placement.activations if keep(edge.node))
    weights = tuple(weight for weight in placement.weights if keep(weight.node))
    observed = {edge.observed for edge in activations}
    shared = (tuple(name for name in group if name in observed) for group in placement.shared)
    return dataclasses.replace(
        placement,
        activations=activations,
        weights=weights,
        int8_nodes=tuple(name for name in placement.int8_nodes if keep(name)),
        shared=tuple(group for group in shared if len(group) > 1),
        fixed={name: amax for name, amax in placement.fixed.items() if name in observed},
    )
