"""Reading a graph node by node: the one way to its nodes, and into the bodies of control flow.

``GraphView`` is the index to ask who makes or reads a tensor of a graph that stays as it is; these
are for passes that edit the graph while they read it, and for what lies inside bodies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

__all__ = [
    "attributes",
    "captured",
    "constants",
    "is_default_domain",
    "nodes",
    "operator",
    "output_names",
    "producers",
    "read_from_outside",
    "readers",
    "reads",
    "subgraphs",
    "walk",
    "with_bodies",
]


def nodes(graph: ModelProto | GraphProto | FunctionProto) -> tuple[NodeProto, ...]:
    """The nodes of a graph, in order; those of bodies are not among them."""
    return tuple(graph.graph.node if isinstance(graph, ModelProto) else graph.node)


def walk(graph: ModelProto | GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph, each followed by those of its bodies."""
    for node in nodes(graph):
        yield from with_bodies(node)


def with_bodies(node: NodeProto) -> Iterator[NodeProto]:
    """A node, and those of its bodies."""
    yield node
    for body in subgraphs(node):
        yield from walk(body)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of an ``If``, ``Loop`` or ``Scan``."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def attributes(node: NodeProto) -> dict[str, Any]:
    """Attribute values by name, as Python objects."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def is_default_domain(node: NodeProto) -> bool:
    """Whether a node's operator is one of ONNX itself."""
    return node.domain in ("", "ai.onnx")


def operator(node: NodeProto) -> str:
    """Name of a node's operator in ``graphs.operators``: with its domain where not ONNX's own."""
    return node.op_type if is_default_domain(node) else f"{node.domain}.{node.op_type}"


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


def readers(graph: ModelProto | GraphProto) -> dict[str, list[NodeProto]]:
    """Tensor name to the nodes that read it, once for each time they do."""
    found: dict[str, list[NodeProto]] = {}
    for node in nodes(graph):
        for name in reads(node):
            found.setdefault(name, []).append(node)
    return found


def producers(graph: ModelProto | GraphProto) -> dict[str, NodeProto]:
    """Tensor name to the node that makes it."""
    return {name: node for node in nodes(graph) for name in node.output if name}


def constants(graph: GraphProto) -> dict[str, TensorProto]:
    """Initializers by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def output_names(graph: GraphProto) -> set[str]:
    """Names of the graph's outputs."""
    return {value.name for value in graph.output}
