"""Models whose activations have no fixed scales, in floating point.

Those of dynamic quantization are made anew for every sample, which no engine does; where weights
alone are codes there are none. Such a model is calibrated as any float model is. Its weights are
the numbers that their codes stand for, its activations are not rounded any more:

    DynamicQuantizeLinear                    q = x, scale = 1, zero point = 0
    MatMulInteger, ConvInteger               MatMul, Conv with the weight's codes less zero points
    DynamicQuantizeMatMul, MatMulIntegerToFloat, DynamicQuantizeLSTM    MatMul, LSTM of numbers
    Gather of codes and DequantizeLinear     Gather of numbers
    DequantizeLinear of a constant           the numbers

The products with scales that follow stay in the graph; ``prepare`` folds them into the weights.
Source: ONNX operators; onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from artefacts.errors import ModelError
from graphs.edit import copy_model, drop_dead, replace_nodes
from graphs.names import Names, node_name
from graphs.operators import INTEGER_OPS, REARRANGING_OPS
from graphs.qdq import DEQUANTIZES, QUANTIZES
from graphs.walk import attributes, constants, nodes, operator
from quantization.foreign.constants import along
from quantization.foreign.dynamic_codes import integer_biases, look_ups

__all__ = ["from_dynamic", "has_coded_weights_only", "is_dynamic"]

Floats = NDArray[np.float32]

_DYNAMIC = "DynamicQuantizeLinear"
_MICROSOFT = "com.microsoft."
_ROUNDED = ("Cast", "Floor", "Round")
_CODED_LAYERS = ("MatMulInteger", "ConvInteger", f"{_MICROSOFT}MatMulIntegerToFloat")


def is_dynamic(model: ModelProto) -> bool:
    """Whether scales of activations are computed at run time."""
    whole = {f"{_MICROSOFT}DynamicQuantizeMatMul", f"{_MICROSOFT}DynamicQuantizeLSTM", _DYNAMIC}
    return any(operator(node) in whole for node in nodes(model))


def has_coded_weights_only(model: ModelProto) -> bool:
    """Whether constants are dequantized and nothing is quantized."""
    names = {operator(node) for node in nodes(model)}
    return bool(names.intersection(DEQUANTIZES)) and names.isdisjoint(INTEGER_OPS | {*QUANTIZES})


def from_dynamic(model: ModelProto) -> tuple[ModelProto, int]:
    """A new model in floating point, and how many layers of codes it had, or else constants.

    Args:
        model: with its data loaded; it is not changed.

    Raises:
        ModelError: codes that no constant holds and no activation was quantized to.
    """
    result = copy_model(model)
    writer = _Writer(result)
    for node in nodes(result):
        writer.add(node)
    replace_nodes(result.graph, writer.nodes)
    del result.graph.value_info[:]  # of codes, where there are numbers now
    drop_dead(result.graph)
    return result, writer.layers or writer.dequantized


class _Writer:
    """The new nodes, and constants beside those of the graph."""

    def __init__(self, model: ModelProto) -> None:
        self._graph = model.graph
        self._known = constants(model.graph)
        self._names = Names(model.graph)
        self._same: dict[str, str] = {}  # codes of an activation → the numbers they stand for
        self._tables = look_ups(model)
        self._biases = integer_biases(model)
        self.nodes: list[NodeProto] = []
        self.layers = 0
        self.dequantized = 0

    def add(self, node: NodeProto) -> None:
        """Write a node, in floating point if it computes with codes."""
        name = operator(node)
        inputs = [self._same.get(each, each) for each in node.input]
        if name == _DYNAMIC:
            self._same[node.output[0]] = inputs[0]
            self._constant(np.float32(1.0), node.output[1])
            self._constant(np.uint8(0), node.output[2])
        elif name in DEQUANTIZES and node.input[0] in self._same:
            self._same[node.output[0]] = inputs[0]
        elif name in DEQUANTIZES and node.input[0] in self._known:
            given = attributes(node)
            sizes = {"axis": given.get("axis", 1), "block": given.get("block_size", 0)}
            self._constant(self._numbers(*node.input, **sizes), node.output[0])
            self.dequantized += 1
        elif name == "Gather" and (scale := self._tables.get(node.output[0])) is not None:
            self._look_up(node, scale)
            self.dequantized += 1
        elif name in _ROUNDED and node.output[0] in self._biases:
            self._same[node.output[0]] = inputs[0]
        elif name in _RULES:
            if name in _CODED_LAYERS and node.input[0] not in self._same:
                raise ModelError(
                    f"input {node.input[0]!r} of node {node_name(node)!r} ({node.op_type}) holds "
                    "codes, expected an activation that DynamicQuantizeLinear makes; export the "
                    "model in floating point and calibrate it"
                )
            _RULES[name](self, node, inputs)
            self.layers += 1
        else:
            self._copy(node, inputs)

    def _copy(self, node: NodeProto, inputs: list[str]) -> None:
        """What is no layer reads numbers for codes; codes that are only moved stay numbers."""
        moved = node.op_type in REARRANGING_OPS and node.input[0] in self._same
        del node.input[:]
        node.input.extend(inputs)
        if moved:
            self._same.update({output: output for output in node.output})
        self.nodes.append(node)

    def _look_up(self, node: NodeProto, scale: Sequence[str]) -> None:
        """Numbers are looked up, and nothing is left to dequantize."""
        table = self._constant(self._numbers(node.input[0], *scale))
        del node.input[0]
        node.input.insert(0, table)
        self._same[node.output[0]] = node.output[0]
        self.nodes.append(node)

    def product(self, node: NodeProto, inputs: list[str]) -> None:
        """MatMulInteger(a, b, a_zero, b_zero): the scales follow as nodes of their own."""
        weight = self._weight(inputs[1], node.input[1], _at(node, 3))
        self._layer("MatMul", node, [inputs[0], weight])

    def convolution(self, node: NodeProto, inputs: list[str]) -> None:
        """ConvInteger, likewise; a zero point may be one for each filter."""
        weight = self._weight(inputs[1], node.input[1], _at(node, 3), first=True)
        self._layer("Conv", node, [inputs[0], weight])

    def scaled_product(self, node: NodeProto, inputs: list[str]) -> None:
        """MatMulIntegerToFloat(a, b, a_scale, b_scale, a_zero, b_zero, bias)."""
        weight = self._constant(self._numbers(node.input[1], node.input[3], _at(node, 5)))
        self._layer("MatMul", node, [inputs[0], weight], bias=_at(node, 6))

    def whole_product(self, node: NodeProto, inputs: list[str]) -> None:
        """DynamicQuantizeMatMul(a, b, b_scale, b_zero, bias)."""
        weight = self._constant(self._numbers(node.input[1], node.input[2], _at(node, 3)))
        self._layer("MatMul", node, [inputs[0], weight], bias=_at(node, 4))

    def lstm(self, node: NodeProto, inputs: list[str]) -> None:
        """DynamicQuantizeLSTM: W and R are stored (directions, inputs, 4 · hidden)."""
        weights = [
            self._constant(self._directions(node.input[index], *node.input[scale : scale + 2]))
            for index, scale in ((1, 8), (2, 10))
        ]
        self._layer("LSTM", node, [inputs[0], *weights, *inputs[3:8]])

    def _layer(self, op_type: str, node: NodeProto, inputs: list[str], bias: str = "") -> None:
        result = node.output[0]
        made = self._names.tensor(f"{result}_product") if bias else result
        outputs = [made, *node.output[1:]]
        new = self._names.node(op_type, inputs, outputs, wanted=node_name(node))
        new.attribute.extend(node.attribute)
        self.nodes.append(new)
        if bias:
            wanted = f"{node_name(node)}_bias"
            self.nodes.append(self._names.node("Add", [made, bias], [result], wanted=wanted))

    def _weight(self, read: str, codes: str, zero: str, *, first: bool = False) -> str:
        """Codes less their zero point as numbers; those of an activation are numbers already."""
        if codes in self._same:
            return read
        values = self._value(codes).astype(np.float32)
        points = self._value(zero).astype(np.float32) if zero else np.zeros((), np.float32)
        if first and points.size > 1:
            points = points.reshape(-1, *[1] * (values.ndim - 1))
        return self._constant(values - points)

    def _numbers(
        self, codes: str, scale: str, zero: str = "", *, axis: int = -1, block: int = 0
    ) -> Floats:
        """What codes stand for; a list of scales is of an axis, or one for each block along it."""
        values = self._value(codes).astype(np.float32)
        channels = axis % max(values.ndim, 1)

        def spread(name: str) -> NDArray[Any]:
            given = self._value(name).astype(np.float32)
            if block:
                return _of_blocks(given, values, channels, block)
            return along(given, values, channels)

        centred = values - spread(zero) if zero else values
        return np.asarray(centred * spread(scale), np.float32)

    def _directions(self, codes: str, scale: str, zero: str = "") -> Floats:
        """The same of an LSTM's weight, a scale for each direction or for each of its columns."""
        read = [self._value(name).astype(np.float32) for name in (codes, scale, zero) if name]
        values, *each = read if zero else [*read, np.zeros((), np.float32)]
        factors, points = (one.reshape(len(one), 1, -1) if one.ndim else one for one in each)
        return np.asarray(((values - points) * factors).transpose(0, 2, 1), np.float32)

    def _value(self, name: str) -> NDArray[np.generic]:
        if name not in self._known:
            raise ModelError(
                f"tensor {name!r} is computed, expected a constant: codes, scales and zero points "
                "of weights are fixed; export the model in floating point and calibrate it"
            )
        return numpy_helper.to_array(self._known[name])

    def _constant(self, value: NDArray[np.generic] | np.generic, name: str = "") -> str:
        made = name or self._names.tensor("weight_of_codes")
        tensor = numpy_helper.from_array(np.asarray(value), made)
        self._graph.initializer.append(tensor)
        self._known[made] = tensor
        return made


def _of_blocks(given: Floats, values: Floats, axis: int, block: int) -> Floats:
    """A number for each value, of one for each block along an axis; the last may be shorter."""
    if not given.ndim:
        return given
    return np.repeat(given, block, axis=axis).take(range(values.shape[axis]), axis=axis)


def _at(node: NodeProto, index: int) -> str:
    return node.input[index] if len(node.input) > index else ""


_RULES: Mapping[str, Callable[[_Writer, NodeProto, list[str]], None]] = {
    "ConvInteger": _Writer.convolution,
    "MatMulInteger": _Writer.product,
    f"{_MICROSOFT}DynamicQuantizeLSTM": _Writer.lstm,
    f"{_MICROSOFT}DynamicQuantizeMatMul": _Writer.whole_product,
    f"{_MICROSOFT}MatMulIntegerToFloat": _Writer.scaled_product,
}
