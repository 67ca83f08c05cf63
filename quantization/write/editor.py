"""The edits of one insertion: Q/DQ nodes, their constants, and what falls away."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from graphs.view import GraphView
from quantization.arithmetic import activation_scale, dequantize
from quantization.placement import QuantizedInput, QuantizedWeight
from quantization.write.weights import QuantizedTensor, check_shape, quantize_weight

__all__ = ["Editor"]


class Editor:
    """A copy of a model and the nodes to be added to it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._view = GraphView(model)
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._positions = {node.name: node.position for node in self._view.nodes}
        self._taken = _names(model.graph)
        self._before: dict[int, list[onnx.NodeProto]] = {}
        self._outputs: dict[tuple[str, int | None], str] = {}
        self._zeros: dict[tuple[str, tuple[int, ...]], str] = {}
        self._unsigned: set[str] = set()

    def quantize_activation(self, edge: QuantizedInput, amax: float, *, unsigned: bool) -> None:
        """Let the edge read the tensor's Q/DQ pair, made at its first use."""
        key = (edge.tensor, None)
        if key not in self._outputs:
            maker = self._view.producer(edge.tensor)
            position = 0 if maker is None else maker.position + 1
            values = activation_scale(amax, unsigned=unsigned)
            scale = self._constant(f"{edge.tensor}_scale", values)
            if unsigned:
                self._unsigned.add(scale)
            codes = self._quantize(edge.tensor, edge.tensor, scale, None, position)
            self._outputs[key] = self._dequantize(edge.tensor, codes, scale, None, position)
        self._redirect(edge.node, edge.index, self._outputs[key])

    def quantize_weight(
        self, weight: QuantizedWeight, override: QuantizedTensor | None, *, keep_float: bool
    ) -> None:
        """Let the edge read the constant as INT8; readers with the same axis share it."""
        key = (weight.tensor, -1 if weight.axis is None else weight.axis)
        if key not in self._outputs:
            position = self._positions[weight.node]
            found = override or quantize_weight(self._view, weight)
            check_shape(self._view, weight, found)
            scale = self._constant(f"{weight.tensor}_scale", found.scale)
            if keep_float:
                values = dequantize(found.codes, found.scale, axis=weight.axis)
                rounded = self._constant(f"{weight.tensor}_rounded", values)
                codes = self._quantize(weight.tensor, rounded, scale, weight.axis, position)
            else:
                codes = self._constant(f"{weight.tensor}_int8", found.codes)
            self._outputs[key] = self._dequantize(
                weight.tensor, codes, scale, weight.axis, position
            )
        self._redirect(weight.node, weight.index, self._outputs[key])

    def finish(self) -> onnx.ModelProto:
        """The model with its nodes in order, without constants that nobody reads any more."""
        graph = self._model.graph
        kept = list(graph.node)
        del graph.node[:]
        for position, node in enumerate(kept):
            graph.node.extend([*self._before.get(position, ()), node])
        graph.node.extend(self._before.get(len(kept), ()))
        _drop_unread_constants(self._model, self._view)
        return self._model

    def _quantize(self, stem: str, source: str, scale: str, axis: int | None, position: int) -> str:
        output = self._name(f"{stem}_quantized")
        self._add("QuantizeLinear", stem, source, scale, output, axis, position)
        return output

    def _dequantize(
        self, stem: str, codes: str, scale: str, axis: int | None, position: int
    ) -> str:
        output = self._name(f"{stem}_dequantized")
        self._add("DequantizeLinear", stem, codes, scale, output, axis, position)
        return output

    def _add(
        self,
        op: str,
        stem: str,
        source: str,
        scale: str,
        output: str,
        axis: int | None,
        before: int,
    ) -> None:
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        inputs = [source, scale, self._zero_point(scale)]
        name = self._name(f"{stem}_{op}")
        node = helper.make_node(op, inputs, [output], name=name, **attributes)
        self._before.setdefault(before, []).append(node)

    def _zero_point(self, scale: str) -> str:
        """Name of a zero of the scale's shape; one constant for each type and shape."""
        shape = next(t.dims for t in reversed(self._model.graph.initializer) if t.name == scale)
        dtype = "uint8" if scale in self._unsigned else "int8"
        key = (dtype, tuple(shape))
        if key not in self._zeros:
            name = "_".join(map(str, (dtype, "zero", *shape)))
            self._zeros[key] = self._constant(name, np.zeros(tuple(shape), dtype))
        return self._zeros[key]

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        name = self._name(name)
        self._model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def _name(self, wanted: str) -> str:
        """``wanted``, with a number where the graph has that name."""
        name, number = wanted, 1
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name

    def _redirect(self, node: str, index: int, tensor: str) -> None:
        self._model.graph.node[self._positions[node]].input[index] = tensor


def _names(graph: onnx.GraphProto) -> set[str]:
    """Every tensor and node name of a graph, bodies of control flow included."""
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.update((node.name, *node.input, *node.output))
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                names |= _names(body)
    return names


def _drop_unread_constants(model: onnx.ModelProto, view: GraphView) -> None:
    """Remove the float weights that INT8 ones replaced, and the nodes that made them."""
    graph = model.graph
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update([*view.outputs, *view.captured])
    dead: set[str] = set()
    for node in reversed(view.nodes):
        constant = any(view.is_constant(name) for name in node.outputs)
        if constant and not any(readers[name] for name in node.outputs):
            dead.update(node.outputs)
            readers.subtract(node.inputs)
    dropped = {name for name in view.initializers if not readers[name]}
    made = {name for node in graph.node for name in node.output} - dead
    _keep(graph.node, [node for node in graph.node if dead.isdisjoint(node.output)])
    for values in (graph.initializer, graph.input):
        _keep(values, [value for value in values if value.name not in dropped])
    _keep(graph.value_info, [value for value in graph.value_info if value.name in made])


def _keep(values: Any, kept: list[Any]) -> None:
    """Leave only ``kept`` in a repeated field; removing one by one is quadratic."""
    if len(kept) < len(values):
        del values[:]
        values.extend(kept)
