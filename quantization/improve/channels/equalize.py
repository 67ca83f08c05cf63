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

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from graphs.channel_groups import ChannelGroups
from graphs.layer_matrix import LayerMatrix, reading_layers
from graphs.view import GraphView
from quantization.improve.channels.amax import levelling_scales
from quantization.improve.channels.rescale import Factor, input_factor, output_factor

__all__ = ["equalizing_factors", "group_scales", "inserting_factors", "scalable"]

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
    alive = np.zeros(groups.count, dtype=bool)
    for tensor, values in amax.items():
        alive[groups.variables(tensor)[values > 0]] = True
    for tensor, values in amax.items():
        variables = groups.variables(tensor)
        # A channel that is dead here and alive in another tensor asks for nothing here.
        asks = (values > 0) | ~alive[variables]
        variables, shares = variables[asks], levelling_scales(values, _SMALLEST)[asks]
        np.maximum.at(largest, variables, shares)
        np.add.at(logs, variables, np.log(shares))
        np.add.at(counts, variables, 1)
    largest[largest == 0] = 1.0  # tensors that are not quantized
    largest[0] = 1.0
    mean = np.exp(logs / np.maximum(counts, 1))
    mean[0] = 1.0
    return largest, mean


def equalizing_factors(groups: ChannelGroups, scales: Floats) -> Iterator[Factor]:
    """Of weights and biases, which divide channels by the scale of their variable.

    Args:
        groups: channels of a prepared model.
        scales: s of every variable, (groups.count,), 1 for variable 0.
    """
    if (scales == 1).all():
        return
    for layer in groups.layers:
        node = layer.node
        read = scales[groups.variables(node.inputs[0])]
        made = scales[groups.variables(node.outputs[0])]
        if (read != 1).any():
            yield input_factor(layer, read)
        if (made != 1).any():
            yield output_factor(layer, made)
            if len(node.inputs) > 2 and node.inputs[2]:
                # A Gemm's bias may be one number for all channels.
                yield Factor(node=node, index=2, values=1.0 / made)


def scalable(view: GraphView, tensor: str) -> tuple[LayerMatrix, ...]:
    """The layers that read ``tensor`` and can take its scales; none if others read it, too."""
    found = reading_layers(view, tensor)
    flat = len(view.shape(tensor) or ()) == 2
    return found if all(layer.is_conv or flat for layer in found) else ()


def inserting_factors(view: GraphView, scales: Mapping[str, Floats]) -> Iterator[Factor]:
    """Of the weights that read tensors which a Mul of their own divides.

    Args:
        view: of a prepared model.
        scales: tensor, all of whose readers are :func:`scalable` → s of each channel, (C,).
    """
    for tensor, scale in scales.items():
        yield from (input_factor(layer, scale) for layer in scalable(view, tensor))
