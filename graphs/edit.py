"""The one way to change a graph: in places with ``GraphEditor``, as a whole with the functions.

All change the graph they are given: whoever returns a new model opens with ``copy_model``.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from artefacts.errors import ModelError
from graphs.names import Names, node_name
from graphs.walk import output_names, reads, subgraphs

if TYPE_CHECKING:
    from graphs.view import Node  # which is read from files, and these are edited

__all__ = [
    "GraphEditor",
    "check_axes",
    "copy_model",
    "drop_dead",
    "hide_initializers",
    "insert_nodes",
    "rename_tensor",
    "replace_nodes",
    "rewire",
    "set_attribute",
    "sort_nodes",
]

_LARGEST_AXIS = 2**31 - 1
_NAMELESS = frozenset({"?", "*", "-1", "None"})


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


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Set the nodes of a graph; they may be its own."""
    copies = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)


def insert_nodes(graph: GraphProto, before: Mapping[int, Sequence[NodeProto]]) -> None:
    """Put nodes in front of those at some positions; the number of nodes stands for the end."""
    if not before:
        return
    old = list(graph.node)
    places = [[*before.get(place, ()), node] for place, node in enumerate(old)]
    replace_nodes(graph, [n for place in (*places, before.get(len(old), ())) for n in place])


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    """Give a node one attribute another value, or none: None takes it away."""
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


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
        names = ", ".join(repr(node_name(nodes[index])) for index in stuck[:5])
        raise ModelError(
            f"graph {graph.name!r} has a cycle that holds up {len(stuck)} nodes ({names}), "
            f"expected none; undo the edit that closed it"
        )
    if order != sorted(order):
        replace_nodes(graph, [nodes[index] for index in order])


def copy_model(model: ModelProto) -> ModelProto:
    """A deep copy, which the caller may edit."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


class GraphEditor:
    """A model that is being edited, which is the caller's own copy.

    Until :meth:`finish` nodes keep their positions, so those of a ``GraphView`` of the same model
    hold, however many are added and taken out meanwhile.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.names = Names(model.graph)
        self._before: dict[int, list[NodeProto]] = {}
        self._gone: set[int] = set()

    @property
    def graph(self) -> GraphProto:
        """The graph, for what has no method here: its inputs, outputs and types."""
        return self.model.graph

    def node(self, node: Node) -> NodeProto:
        """The node in the edited model, to be changed where it is."""
        proto: NodeProto = self.model.graph.node[node.position]
        return proto

    def constant(self, wanted: str, values: NDArray[Any]) -> str:
        """Name of a new constant: ``wanted``, with a number where that is taken."""
        name = self.names.tensor(wanted)
        self._store(name, values)
        return name

    def placeholder(self, wanted: str, like: TensorProto) -> str:
        """Name of a new constant of the type and shape of another, whose data is not copied."""
        name = self.names.tensor(wanted)
        self.model.graph.initializer.add(name=name, data_type=like.data_type, dims=like.dims)
        return name

    def fold(self, node: Node, values: NDArray[Any]) -> None:
        """Let a constant take the place of a node's first output, and the node go."""
        self._store(node.outputs[0], values)
        self.remove(node)

    def redirect(self, node: Node, index: int, tensor: str) -> None:
        """Let one input of a node read another tensor; inputs that are missing are left open."""
        proto = self.node(node)
        while len(proto.input) <= index:
            proto.input.append("")
        proto.input[index] = tensor

    def insert(self, position: int, *nodes: NodeProto) -> None:
        """Put nodes in front of the one at ``position``, behind those put there before."""
        self._before.setdefault(position, []).extend(nodes)

    def remove(self, node: Node) -> None:
        """Take a node out."""
        self._gone.add(node.position)

    def finish(self) -> ModelProto:
        """The model with its nodes added and taken out; positions are new from here on."""
        graph = self.model.graph
        if self._before or self._gone:
            places = [
                [*self._before.get(place, ()), *([] if place in self._gone else [node])]
                for place, node in enumerate(graph.node)
            ]
            places.append(self._before.get(len(graph.node), []))
            replace_nodes(graph, [node for place in places for node in place])
        self._before, self._gone = {}, set()
        return self.model

    def _store(self, name: str, values: NDArray[Any]) -> None:
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
