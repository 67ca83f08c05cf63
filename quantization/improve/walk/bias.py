"""Bias correction: the mean error of a layer's output, taken off its bias.

Rounded weights and clipped, rounded inputs make y' = W' x' + b differ from y = W x + b by an error
whose mean over samples is not zero, channel by channel; depthwise layers, with few weights a
channel, have it most. The correction is

    b_c += shrink_c · mean(y - y')_c,        mean over samples and positions
    shrink_c = m_c² / (m_c² + s_c² / n)

y' is computed with everything before already INT8 and corrected, so errors do not add up. The
shrinking (James & Stein) leaves alone what n samples cannot tell from chance: s_c is the spread
over samples of a sample's own mean error.

Sources: Nagel et al., Data-Free Quantization, 2019, section 4.2, empirical form
(https://arxiv.org/abs/1906.04721); Finkelstein et al., 2019 (https://arxiv.org/abs/1906.03193).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.operators import CONVOLUTION_OPS
from graphs.view import Node

__all__ = ["bias_shift", "channel_axis"]

Array = NDArray[Any]


def channel_axis(node: Node) -> int:
    """Axis of the output that a bias runs along: 1 for convolutions, the last for products."""
    return 1 if node.op_type in CONVOLUTION_OPS else -1


def bias_shift(
    exact: Sequence[Array], actual: Sequence[Array], *, axis: int
) -> NDArray[np.float64]:
    """What to add to each channel's bias: (C_out,).

    Args:
        exact: float outputs of a layer, one array a sample, e.g. (1, C_out, H, W).
        actual: outputs of the INT8 layer on INT8 inputs, of the same shapes.
        axis: the channel axis.
    """
    each = np.stack([_channel_mean(y - z, axis) for y, z in zip(exact, actual, strict=True)])
    mean = each.mean(axis=0)
    chance = each.var(axis=0, ddof=1) / len(each) if len(each) > 1 else np.zeros_like(mean)
    power = mean**2 + chance
    shrink = np.divide(mean**2, power, out=np.zeros_like(mean), where=power > 0)
    return np.asarray(mean * shrink)


def _channel_mean(error: Array, axis: int) -> NDArray[np.float64]:
    channels = error.shape[axis]
    return np.asarray(
        np.moveaxis(error, axis, -1).reshape(-1, channels).mean(axis=0, dtype=np.float64)
    )
