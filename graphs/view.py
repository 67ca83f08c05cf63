"""A read-only index of an ONNX graph: who makes a tensor, who reads it, its shape, its value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphs.names import node_names
from graphs.nominal import inferred_types, nominal_types, shape_of
from graphs.operators import REARRANGING_OPS
from graphs.opset import hide_data, opset_of
from graphs.walk import attributes, operator, output_names, subgraphs, walk

__all__ = ["GraphView", "Node", "Shape", "Use", "index_nodes"]

Array = NDArray[Any]
Shape = tuple[int | None, ...]
# What the evaluator raises for a constant expression that no runtime could compute either.
_IMPOSSIBLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

# Through these a constant stays a constant; exporters leave them between a weight and its layer.
_FOLDABLE_OPS = REARRANGING_OPS | {"Constant", "Cast"}
_FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
)
_LARGEST_KEPT_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One node; compared and hashed by identity.

    Attributes:
        position: index in ``graph.node``, a topological order.
        name: what the node is called, see ``graphs.names``: no two nodes alike.
    """

    position: int
    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    proto: onnx.NodeProto

    @cached_property
    def attributes(self) -> Mapping[str, object]:
        """Attribute values by name, as Python objects."""
        return attributes(self.proto)

    def integers(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """A list-of-integers attribute, or ``default``."""
        value = self.attributes.get(name)
        return tuple(value) if isinstance(value, (list, tuple)) else default

    def integer(self, name: str, default: int) -> int:
        """An integer attribute, or ``default``."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default

    def text(self, name: str, default: str) -> str:
        """A string attribute, or ``default``."""
        value = self.attributes.get(name, default)
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, kw_only=True)
class Use:
    """Input ``index`` of ``node``."""

    node: Node
    index: int


class GraphView:
    """Index of the top-level graph of a model; the model is never changed.

    Nodes inside control-flow bodies are not listed; the outer tensors they read count as
    ``captured``.

    Args:
        model: any model.
        told: shapes of inputs to count work by, where their axes are free.
    """

    def __init__(
        self, model: onnx.ModelProto, told: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        self.model = model
        self._told = told or {}
        graph = model.graph
        self.nodes: tuple[Node, ...] = tuple(index_nodes(graph))
        self.initializers: dict[str, onnx.TensorProto] = {t.name: t for t in graph.initializer}
        self.inputs = tuple(i.name for i in graph.input if i.name not in self.initializers)
        self.outputs = tuple(o.name for o in graph.output)
        self.captured: frozenset[str] = frozenset(_captured_names(graph))
        self._producers = {name: node for node in self.nodes for name in node.outputs if name}
        self._uses: dict[str, list[Use]] = {}
        for node in self.nodes:
            for index, name in enumerate(node.inputs):
                if name:
                    self._uses.setdefault(name, []).append(Use(node=node, index=index))
        self._constant_names = self._find_constants()
        self._constants: dict[str, Array | None] = {}

    def producer(self, tensor: str) -> Node | None:
        """The node that makes ``tensor``; None for graph inputs and initializers."""
        return self._producers.get(tensor)

    def uses(self, tensor: str) -> tuple[Use, ...]:
        """The inputs that read ``tensor``, in graph order."""
        return tuple(self._uses.get(tensor, ()))

    def sole_use(self, tensor: str) -> Use | None:
        """The input that alone reads ``tensor``; None where others do, in bodies or outside."""
        uses = self.uses(tensor)
        return uses[0] if len(uses) == 1 and tensor not in self.read_outside else None

    @cached_property
    def read_outside(self) -> frozenset[str]:
        """What is read by others than the nodes: outputs of the graph, and what is captured."""
        return self.captured.union(self.outputs)

    @property
    def computed(self) -> list[Node]:
        """The nodes whose result depends on the inputs, in order."""
        return [node for node in self.nodes if not self.is_constant(node.outputs[0])]

    def is_constant(self, tensor: str) -> bool:
        """Whether ``tensor`` is an initializer, or made of constants only by folding."""
        return tensor in self._constant_names

    def constant(self, tensor: str) -> Array | None:
        """The value of a constant tensor, or None."""
        if tensor in self._constants:
            return self._constants[tensor]
        found = self._evaluate(tensor) if self.is_constant(tensor) else None
        # A large one is copied anew each time: kept, all weights would be there twice.
        if found is None or found.nbytes <= _LARGEST_KEPT_BYTES or tensor not in self.initializers:
            self._constants[tensor] = found
        return found

    def _find_constants(self) -> set[str]:
        found = set(self.initializers)
        for node in self.nodes:  # in topological order
            if node.op_type in _FOLDABLE_OPS and found.issuperset(filter(None, node.inputs)):
                found.update(filter(None, node.outputs))
        return found

    def _evaluate(self, tensor: str) -> Array | None:
        if tensor in self.initializers:
            return numpy_helper.to_array(self.initializers[tensor])
        needed, nodes = [tensor], {}
        feeds = {}
        while needed:
            name = needed.pop()
            node = self.producer(name)
            if node is None:
                feeds[name] = numpy_helper.to_array(self.initializers[name])
            elif node.position not in nodes:
                nodes[node.position] = node.proto
                needed += [name for name in node.inputs if name]
        graph = helper.make_graph(
            [nodes[position] for position in sorted(nodes)],
            "constant",
            [helper.make_value_info(name, onnx.TypeProto()) for name in feeds],
            [helper.make_value_info(tensor, onnx.TypeProto())],
        )
        opset = helper.make_opsetid("", opset_of(self.model))
        single = helper.make_model(graph, opset_imports=[opset])
        try:
            values: Any = ReferenceEvaluator(single).run([tensor], feeds)
        except _IMPOSSIBLE:
            return None
        return np.asarray(values[0])

    def shape(self, tensor: str) -> Shape | None:
        """Shape with None for dynamic axes; None where even the rank is unknown."""
        if tensor in self.initializers:
            return tuple(self.initializers[tensor].dims)
        info = self._inferred.get(tensor)
        return None if info is None else shape_of(info)

    def element_type(self, tensor: str) -> int:
        """ONNX element type, e.g. ``TensorProto.FLOAT``; 0 where unknown."""
        if tensor in self.initializers:
            return int(self.initializers[tensor].data_type)
        info = self._inferred.get(tensor)
        return 0 if info is None else int(info.tensor_type.elem_type)

    def is_float(self, tensor: str) -> bool:
        """Whether ``tensor`` is known to hold floats of any width."""
        return self.element_type(tensor) in _FLOATS

    def nominal_shape(self, tensor: str) -> tuple[int, ...]:
        """Shape of a tensor for one sample, to count work by; (1,) where it is unknown.

        Free axes of inputs that are not told count as 1 (the first), 224 (image sides) or 128
        (sequences), see ``graphs.nominal``; sizes behind them that stay unknown as 1. Tensors of
        bodies are known here, too.
        """
        if tensor in self.initializers:
            return tuple(self.initializers[tensor].dims)
        info = self._nominal.get(tensor)
        shape = (shape_of(info) if info is not None else None) or (1,)
        return tuple(1 if dim is None else dim for dim in shape)

    @cached_property
    def _inferred(self) -> dict[str, onnx.TypeProto]:
        return inferred_types(hide_data(self.model)[0])

    @cached_property
    def _nominal(self) -> dict[str, onnx.TypeProto]:
        return nominal_types(self.model, self.inputs, self._told)


def index_nodes(graph: onnx.GraphProto) -> Iterator[Node]:
    """The nodes of a graph, or of a body, in order."""
    for position, (proto, name) in enumerate(zip(graph.node, node_names(graph.node), strict=True)):
        yield Node(
            position=position,
            name=name,
            op_type=operator(proto),
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            proto=proto,
        )


def _captured_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name read inside the bodies of If, Loop and Scan (their own names included)."""
    for body in (body for node in walk(graph) for body in subgraphs(node)):
        for inner in body.node:
            yield from inner.input
        yield from output_names(body)
