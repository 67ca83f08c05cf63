"""What nodes are called, and new names for what is added to a graph.

A node is called by its own name. One without a name is called by its operator and first output,
``Relu:y``, before and after preparation, which writes that name into it; of nodes that share a
name each after the first has its output behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from onnx import GraphProto, NodeProto, helper

from graphs.walk import nodes, subgraphs, walk

__all__ = ["Names", "name_nodes", "node_name", "node_names", "replacement", "stem"]


def node_name(node: NodeProto) -> str:
    """What one node is called in messages; ``node_names`` where names must tell nodes apart."""
    return node.name or f"{node.op_type}:{_first_output(node)}"


def stem(node: NodeProto) -> str:
    """What the names of things that are made for a node begin with."""
    return node.name or _first_output(node)


def node_names(found: Iterable[NodeProto]) -> list[str]:
    """What the nodes of one graph are called, each differently."""
    taken: set[str] = set()
    names = []
    for node in found:
        name = base = node_name(node)
        if base in taken:
            name = base = f"{base}:{_first_output(node)}"
        count = 1
        while name in taken:
            count += 1
            name = f"{base}:{count}"
        names.append(name)
        taken.add(name)
    return names


def name_nodes(graph: GraphProto) -> None:
    """Write into each node what it is called, in place."""
    for node, name in zip(graph.node, node_names(graph.node), strict=True):
        node.name = name


def replacement(
    node: NodeProto, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **more: Any
) -> NodeProto:
    """A node that takes the place, and so the name, of another; ``more`` are its attributes."""
    return helper.make_node(op_type, list(inputs), list(outputs), name=node.name, **more)


class Names:
    """The one minter of names: it knows those of a graph, and of every body in it.

    Tensors and nodes have names of their own kinds: a node may be called as a tensor is.
    """

    def __init__(self, graph: GraphProto) -> None:
        self._tensors = set(_tensors(graph))
        self._nodes = {node.name for node in walk(graph)}

    def tensor(self, wanted: str) -> str:
        """``wanted``, with a number where a tensor has that name; from now on it is taken."""
        return _fresh(wanted, self._tensors)

    def node(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        wanted: str,
        **attributes: Any,
    ) -> NodeProto:
        """A node named ``wanted``, with a number where another has that name."""
        name = _fresh(wanted, self._nodes)
        return helper.make_node(op_type, list(inputs), list(outputs), name=name, **attributes)

    def rename(self, node: NodeProto, wanted: str) -> None:
        """Give a node, e.g. a copy of another, the name ``wanted``, in place."""
        node.name = _fresh(wanted, self._nodes)


def _fresh(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 1
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    taken.add(name)
    return name


def _tensors(graph: GraphProto) -> Iterable[str]:
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    for node in nodes(graph):
        yield from (*node.input, *node.output)
        for body in subgraphs(node):
            yield from _tensors(body)


def _first_output(node: NodeProto) -> str:
    return next(filter(None, node.output), "")
