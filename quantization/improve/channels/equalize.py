"""Cross-layer equalisation: channels of an activation brought to like ranges, exactly.

One scale for a tensor fits its largest channel; the others are left with few codes. For any
s_i > 0 and an f with f(s x) = s f(x) (ReLU, LeakyReLU, PReLU, pooling, nothing)

    y = W₂ f(W₁ x + b₁)  =  (W₂ S) f(S⁻¹ W₁ x + S⁻¹ b₁),    S = diag(s)

so dividing what makes channel i and multiplying what reads it changes nothing but the ranges. The
same holds for all tensors of a residual stage at once (channel_groups). With a_ti the largest
magnitude of channel i in quantized tensor t, A_t = max_i a_ti and v the variable of the channel,

    s_v = ( max over t, i of v  a_ti / A_t )^α                    0 < s_v ≤ 1

no tensor's range grows, and the rounding error that channel i brings shrinks to s_v of what it
was. What it costs is seen in the weights that read it; α = ½ goes half the way. The geometric mean
over t instead of the maximum goes further where the tensors of a stage disagree.

ReLU6 and Clip do not scale (their bounds would need a value for each channel), nor does SiLU.
There S⁻¹ can only be a Mul of its own, which TensorRT computes in the pointwise kernel it has
there anyway.

Source: Nagel et al., Data-Free Quantization, 2019, section 4.1 (https://arxiv.org/abs/1906.04721),
for two layers; α: Xiao et al., SmoothQuant, 2022, eq. 4 (https://arxiv.org/abs/2211.10438).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from graphs.amend import append_operator, replace_constant
from graphs.channel_groups import ChannelGroups
from graphs.edit import GraphEditor, copy_model
from graphs.layer_matrix import LayerMatrix, reading_layers
from graphs.view import GraphView

__all__ = ["equalize", "group_scales", "insert_scalings", "scalable"]

Floats = NDArray[np.float64]

# Factors below this would only amplify what float32 rounds away.
_SMALLEST = 1 / 128


def group_scales(groups: ChannelGroups, amax: Mapping[str, Floats]) -> tuple[Floats, Floats]:
    """Scales of all variables for α = 1: by the largest and by the geometric mean over tensors.

    Args:
        groups: of the graph.
        amax: quantized tensor → largest magnitude of each channel, (C,).

    Returns:
        Two arrays (groups.count,). With the first no tensor's range grows; with the second
        some grow and others shrink more. They differ where tensors share channels.
    """
    largest, logs, counts = (np.zeros(groups.count) for _ in range(3))
    for tensor, values in amax.items():
        alive = values > 0
        variables = groups.variables(tensor)[alive]
        shares = np.maximum(values[alive] / values.max(initial=1e-30), _SMALLEST)
        np.maximum.at(largest, variables, shares)
        np.add.at(logs, variables, np.log(shares))
        np.add.at(counts, variables, 1)
    largest[largest == 0] = 1.0  # dead channels, and tensors that are not quantized
    largest[0] = 1.0
    mean = np.exp(logs / np.maximum(counts, 1))
    mean[0] = 1.0
    return largest, mean


def equalize(model: onnx.ModelProto, groups: ChannelGroups, scales: Floats) -> onnx.ModelProto:
    """A new model that computes the same, channels divided by the scale of their variable.

    The model itself where no scale differs from 1.

    Args:
        model: the prepared model that the groups are of; it is not changed.
        groups: its channels.
        scales: s of every variable, (groups.count,), 1 for variable 0.
    """
    if (scales == 1).all():
        return model
    result = copy_model(model)
    for layer in groups.layers:
        node = layer.node
        read = scales[groups.variables(node.inputs[0])]
        made = scales[groups.variables(node.outputs[0])]
        if (read == 1).all() and (made == 1).all():
            continue
        view = GraphView(result)
        matrix = layer.matrix * read[layer.channels][:, None, :]
        matrix /= made.reshape(layer.groups, -1)[..., None]
        _store(result, view, layer, 1, layer.restore(matrix))
        if len(node.inputs) > 2 and node.inputs[2]:
            bias = view.constant(view.nodes[node.position].inputs[2])
            if bias is not None:
                # A Gemm's bias may be one number for all channels.
                _store(result, GraphView(result), layer, 2, bias.astype(np.float64) / made)
    return result


def scalable(view: GraphView, tensor: str) -> tuple[LayerMatrix, ...]:
    """The layers that read ``tensor`` and can take its scales; none if others read it, too."""
    found = reading_layers(view, tensor)
    flat = len(view.shape(tensor) or ()) == 2
    return found if all(layer.is_conv or flat for layer in found) else ()


def insert_scalings(model: onnx.ModelProto, scales: Mapping[str, Floats]) -> onnx.ModelProto:
    """A new model that computes the same, with a Mul by 1 / s where each tensor is made.

    The model itself where there are no scales.

    Args:
        model: a prepared model; it is not changed.
        scales: tensor, all of whose readers are :func:`scalable` → s of each channel, (C,).
    """
    if not scales:
        return model
    result = copy_model(model)
    for tensor, scale in scales.items():
        # Two tensors may be read by layers that share a weight: each sees what the last one left.
        view = GraphView(result)
        for layer in scalable(view, tensor):
            matrix = layer.matrix * scale[layer.channels][:, None, :]
            _store(result, GraphView(result), layer, 1, layer.restore(matrix))
        rank = len(view.shape(tensor) or ())
        factors = (1.0 / scale).reshape([-1 if axis == 1 else 1 for axis in range(rank)])
        append_operator(result, GraphView(result), tensor, "Mul", factors)
    return result


def _store(
    model: onnx.ModelProto, view: GraphView, layer: LayerMatrix, index: int, values: NDArray[Any]
) -> None:
    stored = values.astype(layer.weight.dtype, order="C")
    replace_constant(GraphEditor(model), view, layer.node, index, stored)
