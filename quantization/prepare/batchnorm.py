"""Per-channel scale and shift behind a weighted layer go into its weight and bias.

For y = W x + b followed by z = s y + t per output channel c:
``W'_c = s_c W_c`` and ``b'_c = s_c b_c + t_c``; BatchNormalization has
``s = gamma / sqrt(variance + epsilon)`` and ``t = beta - s mean``
(onnx.ai/onnx/operators/onnx__BatchNormalization.html).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from graphs.edit import replace_nodes, set_attribute
from graphs.names import Names
from graphs.operators import WEIGHTED_OPS
from graphs.shapes import values
from graphs.walk import (
    attributes,
    constants,
    is_default_domain,
    nodes,
    output_names,
    producers,
    readers,
)

__all__ = ["fold_batchnorm"]

Array = NDArray[np.float64]
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def fold_batchnorm(model: ModelProto) -> bool:
    """Fold BatchNormalization, and Mul, Div, Add and Sub by constants, into the layer before.

    Only where nobody else reads the layer's result. Returns whether anything changed.
    """
    folding = _Folding(model)
    before = nodes(model)
    kept = [node for node in before if not folding.fold(node)]
    if len(kept) < len(before):
        replace_nodes(model.graph, kept)
    return len(kept) < len(before)


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """A weighted layer with constant weight and bias, in float64."""

    node: NodeProto
    weight: Array
    channel_axis: int
    channels: int
    bias: Array | None  # (C,), what is added to the product; None where the node has none


class _Folding:
    """One sweep over a graph, in topological order, so a chain folds link by link."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.known = constants(self.graph)
        self.makers = producers(self.graph)
        self.names = Names(self.graph)
        self.readers = readers(self.graph)
        self.outputs = output_names(self.graph)
        self.values = values(model)

    def fold(self, node: NodeProto) -> bool:
        """Fold ``node`` into the layer that feeds it; False where it does not fit."""
        if node.op_type not in _FOLLOWERS or not is_default_domain(node):
            return False
        for index, name in enumerate(node.input[:2]):
            layer = self._layer(name)
            affine = layer and _FOLLOWERS[node.op_type](self, node, index, layer)
            if layer and affine and self._absorb(layer, *affine):
                layer.node.output[0] = node.output[0]
                self.makers[node.output[0]] = layer.node
                return True
        return False

    def constant(self, name: str) -> Array | None:
        """A floating-point initializer in float64."""
        tensor = self.known.get(name)
        if tensor is None or tensor.data_type not in _FLOATS:
            return None
        return np.asarray(numpy_helper.to_array(tensor), np.float64)

    def _layer(self, name: str) -> _Layer | None:
        """The foldable layer that makes ``name`` for one reader only."""
        node = self.makers.get(name)
        if node is None or node.op_type not in WEIGHTED_OPS or not is_default_domain(node):
            return None
        if name in self.outputs or len(self.readers.get(name, ())) != 1:
            return None
        weight = self.constant(node.input[1])
        if weight is None or weight.ndim < 2 or (node.op_type == "MatMul" and weight.ndim > 2):
            return None
        given = attributes(node)
        axis = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}.get(
            node.op_type, 0 if given.get("transB") else 1
        )
        channels = weight.shape[axis] * (
            given.get("group", 1) if node.op_type == "ConvTranspose" else 1
        )
        bias = None
        if len(node.input) > 2 and node.input[2]:
            bias = self.constant(node.input[2])
            if bias is None or bias.size not in (1, channels) or bias.shape[-1:] > (channels,):
                return None
            bias = np.broadcast_to(bias.reshape(-1), (channels,)) * given.get("beta", 1.0)
        return _Layer(node=node, weight=weight, channel_axis=axis, channels=channels, bias=bias)

    def _absorb(self, layer: _Layer, scale: Array, shift: Array) -> bool:
        """Write the new weight and bias; False where a number would not be finite any more."""
        node = layer.node
        bias = shift if layer.bias is None else layer.bias * scale + shift
        weight = _scaled(layer, scale)
        needs_bias = layer.bias is not None or bool(shift.any())
        if node.op_type == "MatMul" and needs_bias and self._rank(node.input[0]) != 2:
            return False
        dtype = numpy_helper.to_array(self.known[node.input[1]]).dtype
        with np.errstate(over="ignore"):
            weight, bias = weight.astype(dtype), bias.astype(dtype)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            return False
        if not (scale == 1).all():
            node.input[1] = self._store(node.input[1], weight, f"{node.output[0]}//weight")
        if needs_bias:
            old = node.input[2] if len(node.input) > 2 else ""
            name = self._store(old, bias, f"{node.output[0]}//bias")
            _set_bias(node, name)
        return True

    def _store(self, old: str, value: NDArray[Any], new: str) -> str:
        """Put ``value`` in place of initializer ``old``, or beside it where others read that."""
        name = old
        if not old or len(self.readers.get(old, ())) != 1 or old in self.outputs:
            name = self.names.tensor(new)
            self.known[name] = self.graph.initializer.add()
        self.known[name].CopyFrom(numpy_helper.from_array(value, name))
        return name

    def _rank(self, name: str) -> int:
        value = self.values.get(name)
        return 0 if value is None else len(value.type.tensor_type.shape.dim)


def _scaled(layer: _Layer, scale: Array) -> Array:
    weight = layer.weight
    if layer.node.op_type == "ConvTranspose":  # (C_in, C_out / groups, ...): split C_in by group
        groups = layer.channels // weight.shape[1]
        split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        factor = scale.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))
        scaled: Array = (split * factor).reshape(weight.shape)
        return scaled
    shape = [1] * weight.ndim
    shape[layer.channel_axis] = -1
    return np.asarray(weight * scale.reshape(shape))


def _set_bias(node: NodeProto, name: str) -> None:
    if node.op_type == "MatMul":  # rank 2 and a bias: that is a Gemm
        node.op_type = "Gemm"
    inputs = [*node.input[:2], name]
    del node.input[:]
    node.input.extend(inputs)
    set_attribute(node, "beta", None)


_Pair = tuple[Array, Array]


def _batchnorm(folding: _Folding, node: NodeProto, index: int, layer: _Layer) -> _Pair | None:
    """Inference mode only: in training the statistics are those of the batch."""
    given = attributes(node)
    if index or given.get("training_mode") or len([name for name in node.output if name]) > 1:
        return None
    parts = [folding.constant(name) for name in node.input[1:5]]
    if any(part is None or part.shape != (layer.channels,) for part in parts):
        return None
    gamma, beta, mean, variance = (part for part in parts if part is not None)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + given.get("epsilon", 1e-5))
        return scale, beta - scale * mean


def _other(folding: _Folding, node: NodeProto, index: int, layer: _Layer) -> Array | None:
    """The constant operand of a binary node, as one number per output channel."""
    value = folding.constant(node.input[1 - index])
    if value is None:
        return None
    # Rank of the layer's output; a constant of more axes would add some.
    convolution = layer.node.op_type.startswith("Conv")
    rank = layer.weight.ndim if convolution else max(1, folding._rank(layer.node.input[0]))
    behind = layer.weight.ndim - 2 if convolution else 0  # axes after the channel
    padded = (1,) * (rank - value.ndim) + value.shape
    wanted = (1,) * (rank - behind - 1) + (layer.channels,) + (1,) * behind
    if value.ndim > rank or any(p not in (1, w) for p, w in zip(padded, wanted, strict=True)):
        return None
    return np.broadcast_to(value.reshape(-1), (layer.channels,))


def _add(folding: _Folding, node: NodeProto, index: int, layer: _Layer) -> _Pair | None:
    other = _other(folding, node, index, layer)
    return None if other is None else (np.ones_like(other), other)


def _sub(folding: _Folding, node: NodeProto, index: int, layer: _Layer) -> _Pair | None:
    other = _other(folding, node, index, layer)
    if other is None:
        return None
    return (np.ones_like(other), -other) if index == 0 else (-np.ones_like(other), other)


def _mul(folding: _Folding, node: NodeProto, index: int, layer: _Layer) -> _Pair | None:
    other = _other(folding, node, index, layer)
    return None if other is None else (other, np.zeros_like(other))


def _div(folding: _Folding, node: NodeProto, index: int, layer: _Layer) -> _Pair | None:
    other = _other(folding, node, index, layer)
    if other is None or index or not other.all():
        return None
    return 1 / other, np.zeros_like(other)


_FOLLOWERS = {
    "Add": _add,
    "BatchNormalization": _batchnorm,
    "Div": _div,
    "Mul": _mul,
    "Sub": _sub,
}
