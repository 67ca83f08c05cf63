"""The one way to change a graph in places: nodes and constants added, replaced, taken out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from graphs.edit import replace_nodes
from graphs.names import Names
from graphs.view import Node

__all__ = ["GraphEditor", "copy_model"]


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
