"""The edits of one insertion: Q/DQ nodes, their constants, and what falls away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from typing import Any

import numpy as np
import onnx

from graphs.edit import GraphEditor, replace_nodes
from graphs.tensor_data import without_data
from graphs.view import GraphView
from graphs.walk import nodes, producers
from quantization.arithmetic import activation_scale, dequantize
from quantization.placement import QuantizedInput, QuantizedWeight
from quantization.write.weights import QuantizedTensor, check_shape, quantize_weight

__all__ = ["Editor"]

_LARGE_BYTES = 1 << 20
_Pair = tuple[str, str]  # names of a scale and a zero point


class Editor:
    """A copy of a model and the nodes to be added to it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._view = GraphView(model)
        # Most large constants are replaced by codes: only those still read are copied, at the end.
        light, large = without_data(model, _LARGE_BYTES)
        self._large = {tensor.name: tensor for tensor in large}
        self._editor = GraphEditor(light)
        self._nodes = {node.name: node for node in self._view.nodes}
        self._outputs: dict[tuple[str, int | None], str] = {}
        self._zeros: dict[tuple[str, tuple[int, ...]], str] = {}

    def quantize_activation(self, edge: QuantizedInput, amax: float, *, unsigned: bool) -> None:
        """Let the edge read the tensor's Q/DQ pair, made at its first use."""
        key = (edge.tensor, None)
        if key not in self._outputs:
            maker = self._view.producer(edge.tensor)
            position = 0 if maker is None else maker.position + 1
            values = np.asarray(activation_scale(amax, unsigned=unsigned))
            scale = self._editor.constant(f"{edge.tensor}_scale", values)
            zero = self._zero_point(values.shape, "uint8" if unsigned else "int8")
            codes = self._quantize(edge.tensor, edge.tensor, (scale, zero), None, position)
            self._outputs[key] = self._dequantize(edge.tensor, codes, (scale, zero), None, position)
        self._editor.redirect(self._nodes[edge.node], edge.index, self._outputs[key])

    def quantize_weight(
        self, weight: QuantizedWeight, override: QuantizedTensor | None, *, keep_float: bool
    ) -> None:
        """Let the edge read the constant as INT8; readers with the same axis share it."""
        key = (weight.tensor, -1 if weight.axis is None else weight.axis)
        if key not in self._outputs:
            position, stem = self._nodes[weight.node].position, weight.tensor
            found = override or quantize_weight(self._view, weight)
            check_shape(self._view, weight, found)
            scale = self._editor.constant(f"{stem}_scale", found.scale)
            if keep_float:
                values = dequantize(found.codes, found.scale, axis=weight.axis)
                rounded = self._editor.constant(f"{stem}_rounded", values)
                pair = scale, self._zero_point(np.shape(found.scale), "int8")
                codes = self._quantize(stem, rounded, pair, weight.axis, position)
            else:
                codes = self._editor.constant(f"{stem}_int8", found.codes)
                pair = scale, self._zero_point(np.shape(found.scale), "int8")
            self._outputs[key] = self._dequantize(stem, codes, pair, weight.axis, position)
        self._editor.redirect(self._nodes[weight.node], weight.index, self._outputs[key])

    def finish(self) -> onnx.ModelProto:
        """The model with its nodes in order, without constants that nobody reads any more."""
        model = self._editor.finish()
        _drop_unread_constants(model, self._view)
        for tensor in model.graph.initializer:
            if tensor.name in self._large:
                tensor.CopyFrom(self._large[tensor.name])
        return model

    def _quantize(self, stem: str, source: str, pair: _Pair, axis: int | None, before: int) -> str:
        return self._add("QuantizeLinear", "quantized", stem, (source, *pair), axis, before)

    def _dequantize(self, stem: str, codes: str, pair: _Pair, axis: int | None, before: int) -> str:
        return self._add("DequantizeLinear", "dequantized", stem, (codes, *pair), axis, before)

    def _add(
        self,
        op: str,
        word: str,
        stem: str,
        inputs: Sequence[str],
        axis: int | None,
        before: int,
    ) -> str:
        names = self._editor.names
        output = names.tensor(f"{stem}_{word}")
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        node = names.node(op, inputs, [output], wanted=f"{stem}_{op}", **attributes)
        self._editor.insert(before, node)
        return output

    def _zero_point(self, shape: tuple[int, ...], dtype: str) -> str:
        """Name of a zero of the scale's shape; one constant for each type and shape."""
        key = (dtype, shape)
        if key not in self._zeros:
            name = "_".join(map(str, (dtype, "zero", *shape)))
            self._zeros[key] = self._editor.constant(name, np.zeros(shape, dtype))
        return self._zeros[key]


def _drop_unread_constants(model: onnx.ModelProto, view: GraphView) -> None:
    """Remove the float weights that INT8 ones replaced, and the nodes that made them."""
    graph = model.graph
    readers = Counter(name for node in nodes(graph) for name in node.input)
    readers.update(view.read_outside)
    dead: set[str] = set()
    for node in reversed(view.nodes):
        constant = any(view.is_constant(name) for name in node.outputs)
        if constant and not any(readers[name] for name in node.outputs):
            dead.update(node.outputs)
            readers.subtract(node.inputs)
    dropped = {name for name in view.initializers if not readers[name]}
    made = producers(graph).keys() - dead
    if dead:
        replace_nodes(graph, [node for node in nodes(graph) if dead.isdisjoint(node.output)])
    for values in (graph.initializer, graph.input):
        _remove(values, {value.name for value in values} & dropped)
    _remove(graph.value_info, {value.name for value in graph.value_info} - made)


def _remove(values: Any, names: Set[str]) -> None:
    """Take some out of a repeated field: sorted behind the others, so that none is copied."""
    if names:
        values.sort(key=lambda value: value.name in names)  # a stable sort keeps the order
        del values[sum(value.name not in names for value in values) :]
