"""Cross-layer equalisation: channels of an activation brought to like ranges, exactly.

One scale for a tensor fits its largest channel; the others are left with few codes. For channel i,
any s_i > 0 and an f with f(s x) = s f(x) (ReLU, LeakyReLU, PReLU, nothing)

    y = W₂ f(W₁ x + b₁)  =  (W₂ S) f(S⁻¹ W₁ x + S⁻¹ b₁),    S = diag(s)

so dividing what makes channel i and multiplying what reads it changes nothing but the ranges:

    s_i = r₁ᵢ^α / r₂ᵢ^(1-α),    r₁ᵢ = max |x_i|,  r₂ᵢ = max |W₂[:, i]|

α = ½ gives both sides like ranges; α = 1 gives every channel the whole range, which costs nothing
where the readers are depthwise (their weights have a scale for each channel). ReLU6 and Clip do
not scale (their bounds would need a value per channel) and SiLU does not either. There S⁻¹ can
only be a Mul of its own, which TensorRT computes in the pointwise kernel it has there anyway: done
where the tensor loses far more without it.

Source: Nagel et al., Data-Free Quantization, 2019, section 4.1 (https://arxiv.org/abs/1906.04721);
α: Xiao et al., SmoothQuant, 2022, eq. 4 (https://arxiv.org/abs/2211.10438).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from quantization.amend import copy_model, fresh_name, replace_constant
from quantization.graph_view import GraphView, Node, Use
from quantization.layer_matrix import LayerMatrix, layer_matrix
from quantization.placement import Placement

__all__ = ["Equalizable", "channel_scales", "equalizable", "equalize"]

Array = NDArray[Any]

_HOMOGENEOUS_OPS = frozenset({"LeakyRelu", "PRelu", "Relu"})
# What these make of a scaled channel is the scaled channel.
_COMMUTING_OPS = frozenset(
    {"AveragePool", "Dropout", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool"}
)
# Scales apart by more than this only amplify what float32 rounds away.
_LARGEST_RATIO = 1e3


@dataclass(frozen=True, kw_only=True)
class Equalizable:
    """A tensor whose channels can be scaled.

    Attributes:
        producer: the layer whose output channels take the division; None where a Mul must.
        readers: the layers whose input channels take the multiplication.
        rank: number of axes of the tensor; its channels are axis 1.
    """

    producer: Node | None
    readers: tuple[Node, ...]
    rank: int


def equalizable(view: GraphView, placement: Placement) -> dict[str, Equalizable]:
    """The quantized tensors whose channels can be scaled without changing any result."""
    observed = {edge.observed for edge in placement.activations}
    grouped = {name for group in placement.shared for name in group}
    found = {}
    for tensor in sorted(observed - grouped - set(placement.fixed) - set(view.inputs)):
        shape = view.shape(tensor)
        readers = _readers(view, tensor, observed)
        if readers and shape and len(shape) > 1 and shape[1]:
            producer = _producer(view, tensor)
            found[tensor] = Equalizable(producer=producer, readers=readers, rank=len(shape))
    return found


def channel_scales(
    amax: NDArray[np.float64], readers: Sequence[LayerMatrix], alpha: float
) -> NDArray[np.float64]:
    """The s of each channel, with geometric mean 1.

    Args:
        amax: largest magnitude of each channel, (C,). Dead channels keep s = 1.
        readers: the layers that read the tensor.
        alpha: 0.5 to share the range between activation and weights, 1 to give it all to the
            activation.
    """
    seen = np.zeros(amax.shape)
    for layer in readers:
        largest = np.abs(layer.matrix).max(axis=1)  # (groups, K)
        np.maximum.at(seen, layer.channels, largest)
    alive = (amax > 0) & (seen > 0)
    logs = np.zeros(amax.shape)
    logs[alive] = alpha * np.log(amax[alive]) - (1 - alpha) * np.log(seen[alive])
    if alive.any():
        logs[alive] -= logs[alive].mean()
    limit = np.log(_LARGEST_RATIO) / 2
    return np.asarray(np.exp(np.clip(logs, -limit, limit)))


def equalize(
    model: onnx.ModelProto,
    plans: Mapping[str, Equalizable],
    scales: Mapping[str, NDArray[np.float64]],
) -> onnx.ModelProto:
    """A new model that computes the same with channel i of each tensor divided by s_i.

    Tensors and nodes keep their names; where a Mul is needed, it makes the tensor and what made
    it before is renamed.

    Args:
        model: a prepared model; it is not changed.
        plans: from :func:`equalizable` of this model.
        scales: tensor → s, (C,).
    """
    result = copy_model(model)
    inserted: list[tuple[int, onnx.NodeProto]] = []
    for tensor, scale in scales.items():
        plan = plans[tensor]
        # Several tensors may change the same weight, so each works on what the last one left.
        view = GraphView(result)
        for reader in plan.readers:
            layer = layer_matrix(view, view.nodes[reader.position])
            if layer is not None:
                values = layer.restore(layer.matrix * scale[layer.channels][:, None, :])
                _store(result, view, layer.node, 1, values.astype(layer.weight.dtype))
                view = GraphView(result)
        if plan.producer is None:
            inserted.append(_scaling_node(result, view, tensor, scale, plan.rank))
        else:
            _divide(result, view, view.nodes[plan.producer.position], scale)
    for position, node in sorted(inserted, key=lambda entry: -entry[0]):
        result.graph.node.insert(position, node)
    return result


def _producer(view: GraphView, tensor: str) -> Node | None:
    """The layer whose weights can make ``tensor`` smaller, channel by channel."""
    node = view.producer(tensor)
    if node is not None and node.op_type in _HOMOGENEOUS_OPS:
        source = node.inputs[0]
        if len(view.uses(source)) != 1 or source in {*view.outputs, *view.captured}:
            return None
        node = view.producer(source)
    if node is None or layer_matrix(view, node) is None:
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    return node if not bias or view.constant(bias) is not None else None


def _readers(view: GraphView, tensor: str, observed: Set[str]) -> tuple[Node, ...]:
    """The layers that read ``tensor``, pooling looked through; none if others do, too."""
    found: list[Node] = []
    pending = [tensor]
    while pending:
        name = pending.pop()
        if name in view.outputs or name in view.captured:
            return ()
        for use in view.uses(name):
            if _multiplies(view, use):
                found.append(use.node)
            elif use.node.op_type in _COMMUTING_OPS and use.node.outputs[0] not in observed:
                pending.append(use.node.outputs[0])
            else:
                return ()
    return tuple(found)


def _multiplies(view: GraphView, use: Use) -> bool:
    """Whether the reader is a layer whose weight has an axis for the channels."""
    shape = view.shape(use.node.inputs[0]) or ()
    layer = layer_matrix(view, use.node) if use.index == 0 else None
    return layer is not None and (layer.is_conv or len(shape) == 2)


def _divide(model: onnx.ModelProto, view: GraphView, node: Node, scale: Array) -> None:
    layer = layer_matrix(view, node)
    if layer is None:
        return
    rows = scale.reshape(layer.groups, -1)[..., None]
    values = layer.restore(layer.matrix / rows).astype(layer.weight.dtype)
    _store(model, view, node, 1, values)
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = view.constant(node.inputs[2])
        if bias is not None:
            # A Gemm's bias may be one number for all channels.
            smaller = np.broadcast_to(bias, (*bias.shape[:-1], scale.size)) / scale
            _store(model, GraphView(model), node, 2, smaller.astype(bias.dtype))


def _store(model: onnx.ModelProto, view: GraphView, node: Node, index: int, values: Array) -> None:
    proto = model.graph.node[node.position]
    replace_constant(model, view, proto, index, np.ascontiguousarray(values))


def _scaling_node(
    model: onnx.ModelProto, view: GraphView, tensor: str, scale: Array, rank: int
) -> tuple[int, onnx.NodeProto]:
    """The Mul that makes ``tensor``, and where it goes; what made it writes to a new name."""
    maker = view.producer(tensor)
    assert maker is not None  # graph inputs are never equalizable
    proto = model.graph.node[maker.position]
    inner = fresh_name(model.graph, f"{tensor}_unequalized")
    proto.output[list(proto.output).index(tensor)] = inner
    name = fresh_name(model.graph, f"{tensor}_equalization")
    dtype = helper.tensor_dtype_to_np_dtype(view.element_type(tensor) or onnx.TensorProto.FLOAT)
    factors = (1.0 / scale).astype(dtype).reshape([-1 if axis == 1 else 1 for axis in range(rank)])
    model.graph.initializer.append(numpy_helper.from_array(factors, name))
    node_name = fresh_name(model.graph, f"{tensor}_equalize")
    node = helper.make_node("Mul", [inner, name], [tensor], name=node_name)
    return maker.position + 1, node
