"""Walking and rewiring a graph: who reads a tensor, who makes it, and in which order.

The functions that change a graph change the one they are given: ``prepare`` works on its own copy.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from onnx import GraphProto, NodeProto, TensorProto

from artefacts.errors import ModelError

__all__ = [
    "check_axes",
    "constants",
    "drop_dead",
    "hide_initializers",
    "is_default_domain",
    "output_names",
    "producers",
    "read_from_outside",
    "readers",
    "rename_tensor",
    "rewire",
    "sort_nodes",
    "subgraphs",
]

_LARGEST_AXIS = 2**31 - 1
_NAMELESS = frozenset({"?", "*", "-1", "None"})


def is_default_domain(node: NodeProto) -> bool:
    """Whether a node's operator is one of ONNX itself."""
    return node.domain in ("", "ai.onnx")


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of an ``If``, ``Loop`` or ``Scan``."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def check_axes(graph: GraphProto) -> None:
    """Free axes of size -1 or name "?", which some exporters write for dynamic ones, in place.

    Axes of one name have one size: Paddle's "?" for height and width would make all images square,
    and TensorRT holds a model to it.

    Raises:
        ModelError: an axis is larger than any library takes.
    """
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")
            if dim.dim_param in _NAMELESS:
                dim.ClearField("dim_param")
            if dim.dim_value > _LARGEST_AXIS:
                raise ModelError(
                    f"tensor {value.name!r} of graph {graph.name!r} has an axis of "
                    f"{dim.dim_value}, expected at most {_LARGEST_AXIS}; export the model again"
                )
    for node in graph.node:
        for inner in subgraphs(node):
            check_axes(inner)


def hide_initializers(graph: GraphProto) -> None:
    """Initializers that are inputs too could be fed, so nothing could be folded (before IR 4)."""
    constant = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in constant]
    del graph.input[:]
    graph.input.extend(kept)


def captured(node: NodeProto) -> set[str]:
    """Names that a node's subgraphs read from outside."""
    return {name for graph in subgraphs(node) for name in read_from_outside(graph)}


def read_from_outside(graph: GraphProto) -> set[str]:
    """Names that a body, or a body in it, reads and does not define."""
    inner = {tensor.name for tensor in graph.initializer} | {v.name for v in graph.input}
    names = {value.name for value in graph.output}
    for child in graph.node:
        names.update(child.input, captured(child))
        inner.update(child.output)
    return names - inner


def reads(node: NodeProto) -> list[str]:
    """Names a node depends on, those of its subgraphs included."""
    return [name for name in node.input if name] + sorted(captured(node))


def readers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Tensor name to the nodes that read it, once for each time they do."""
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in reads(node):
            found.setdefault(name, []).append(node)
    return found


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """Tensor name to the node that makes it."""
    return {name: node for node in graph.node for name in node.output if name}


def constants(graph: GraphProto) -> dict[str, TensorProto]:
    """Initializers by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def output_names(graph: GraphProto) -> set[str]:
    """Names of the graph's outputs."""
    return {value.name for value in graph.output}


def rewire(graph: GraphProto, names: dict[str, str]) -> None:
    """Let every reader of a key of ``names`` read its value instead, in subgraphs too."""
    if not names:
        return
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in names:
                node.input[index] = names[name]
        for inner in subgraphs(node):
            rewire(inner, names)
            for value in inner.output:
                value.name = names.get(value.name, value.name)


def rename_tensor(graph: GraphProto, old: str, new: str) -> None:
    """Rename a tensor where it is made and where it is read."""
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name == old:
                node.output[index] = new
    rewire(graph, {old: new})


def drop_dead(graph: GraphProto) -> bool:
    """Remove nodes and initializers that no output depends on; graph inputs stay."""
    needed = output_names(graph)
    alive = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            alive.append(node)
            needed.update(reads(node))
    changed = len(alive) < len(graph.node)
    if changed:
        replace_nodes(graph, alive[::-1])
    unread = [i for i, tensor in enumerate(graph.initializer) if tensor.name not in needed]
    for index in reversed(unread):
        del graph.initializer[index]
    return changed or bool(unread)


def replace_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Set the nodes of a graph; they may be its own."""
    copies = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)


def sort_nodes(graph: GraphProto) -> None:
    """Put nodes behind what they read; keep the order where it is right already.

    Raises:
        ModelError: nodes depend on each other in a circle.
    """
    nodes = list(graph.node)
    makers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    waits = [{makers[name] for name in reads(node) if name in makers} for node in nodes]
    followers: dict[int, list[int]] = {}
    for index, before in enumerate(waits):
        for maker in before:
            followers.setdefault(maker, []).append(index)
    missing = [len(before) for before in waits]
    ready = [index for index, count in enumerate(missing) if count == 0]
    order: list[int] = []
    while ready:  # a heap of positions: the earliest node that can go next goes next
        order.append(heapq.heappop(ready))
        for index in followers.get(order[-1], ()):
            missing[index] -= 1
            if missing[index] == 0:
                heapq.heappush(ready, index)
    if len(order) < len(nodes):
        stuck = sorted(set(range(len(nodes))) - set(order))
        names = ", ".join(repr(nodes[index].name or nodes[index].op_type) for index in stuck[:5])
        raise ModelError(
            f"graph {graph.name!r} has a cycle that holds up {len(stuck)} nodes ({names}), "
            f"expected none; undo the edit that closed it"
        )
    if order != sorted(order):
        replace_nodes(graph, [nodes[index] for index in order])
