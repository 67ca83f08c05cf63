"""What writes one operator in others: names, types and constants of the graph it stands in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from graphs.names import Names, stem
from graphs.opset import opset_of
from graphs.shapes import values
from graphs.walk import constants, producers

__all__ = ["Steps", "Writer"]

_AXES_AS_INPUT = 18  # of ReduceL1, ReduceL2 and ReduceMax


class Writer:
    """What the rules need of the graph: names, types and constants."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.names = Names(model.graph)
        self.values = values(model)
        self.constants = constants(model.graph)
        self.makers = producers(model)
        self.opset = opset_of(model)

    def kind(self, name: str) -> int:
        """Element type of a tensor; 0 where it is not known."""
        if name in self.constants:
            return self.constants[name].data_type
        return self.values[name].type.tensor_type.elem_type if name in self.values else 0

    def rank(self, name: str) -> int | None:
        """Number of axes of a tensor; None where it is not known."""
        value = self.values.get(name)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return None
        return len(value.type.tensor_type.shape.dim)

    def size(self, name: str, axis: int) -> int | None:
        """Length of an axis; None where it is not known."""
        length = self.length(name, axis)
        return length if isinstance(length, int) else None

    def length(self, name: str, axis: int) -> int | str | None:
        """Length of an axis, or its name where it is free; None where it has none."""
        if self.rank(name) is None:
            return None
        dim = self.values[name].type.tensor_type.shape.dim[axis]
        return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None

    def constant(self, node: NodeProto, word: str, value: ArrayLike, kind: Any) -> str:
        """Name of a new constant of a node."""
        name = self.names.tensor(f"{node.output[0]}_{word}")
        self.graph.initializer.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def step(
        self,
        node: NodeProto,
        op_type: str,
        inputs: Sequence[str],
        *,
        last: bool = False,
        makes: int = 0,
        **more: Any,
    ) -> NodeProto:
        """One node of those that take the place of ``node``; the last of an output makes it."""
        word = op_type.lower()
        output = node.output[makes] if last else self.names.tensor(f"{node.output[0]}_{word}")
        return self.names.node(op_type, inputs, [output], wanted=f"{stem(node)}_{word}", **more)

    def reduced(
        self, node: NodeProto, op_type: str, source: str, axes: list[int], *, last: bool = False
    ) -> NodeProto:
        """A reduction that keeps its axes."""
        if self.opset >= _AXES_AS_INPUT:
            given = self.constant(node, "axes", axes, np.int64)
            return self.step(node, op_type, [source, given], last=last)
        return self.step(node, op_type, [source], last=last, axes=axes)

    def as_float(self, node: NodeProto) -> list[NodeProto]:
        """A Cast of the input, where it is not float32."""
        if self.kind(node.input[0]) == TensorProto.FLOAT:
            return []
        return [self.step(node, "Cast", [node.input[0]], to=TensorProto.FLOAT)]


class Steps:
    """The nodes that take the place of one, one after the other."""

    def __init__(self, writer: Writer, node: NodeProto) -> None:
        self.writer, self.node = writer, node
        self.written: list[NodeProto] = []

    def __call__(self, op_type: str, *inputs: str, makes: int | None = None, **more: object) -> str:
        """One more node; ``makes`` is the output of that one that it makes."""
        last = makes is not None
        step = self.writer.step(self.node, op_type, inputs, last=last, makes=makes or 0, **more)
        self.written.append(step)
        return str(step.output[0])

    def constant(self, word: str, value: ArrayLike) -> str:
        """Name of a new constant of whole numbers."""
        return self.writer.constant(self.node, word, value, np.int64)

    def number(self, word: str, value: ArrayLike) -> str:
        """Name of a new constant of floats."""
        return self.writer.constant(self.node, word, value, np.float32)

    def finish(self) -> list[NodeProto]:
        """The nodes, of which the last makes what the one made."""
        self.written[-1].output[0] = self.node.output[0]
        return self.written
