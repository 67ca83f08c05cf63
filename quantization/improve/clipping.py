"""Scales of weights that leave the smallest squared error, per output channel.

The largest magnitude of a channel need not be kept: clipping it costs (amax - T)², once, and makes
the rounding error T² / (12 · 127²) of all other weights smaller. With T from a grid of shares of
amax, the error of each share is computed as it is and the smallest wins:

    scale_c = min over T of  E_c(T),   E_c(T) = (Q_T(w_c) - w_c) H (Q_T(w_c) - w_c)ᵀ

H = I is the error of the weights themselves; H = X Xᵀ / n is the error of the layer's output, of
which only the diagonal is used: inputs that are large on average count for more.

Source: Nagel et al., A White Paper on Neural Network Quantization, 2021, section 3.1
(https://arxiv.org/abs/2106.08295): MSE range setting.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantization.arithmetic import symmetric_scale

__all__ = ["clipped_scale", "largest_scale"]

_LEVELS = 127
# Below half of the largest weight nothing was ever gained at eight bits.
_SHARES = np.linspace(1.0, 0.5, 26)


def largest_scale(matrix: NDArray[Any]) -> NDArray[np.float64]:
    """Scale amax / 127 of each row: (groups, C_out / groups, K) → (groups, C_out / groups)."""
    return symmetric_scale(np.abs(matrix).max(axis=-1, initial=0.0)).astype(np.float64)


def clipped_scale(
    matrix: NDArray[np.float64], importance: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Scale of each row with the smallest squared error; ties go to the larger one.

    Args:
        matrix: (groups, C_out / groups, K).
        importance: mean square of each input, (groups, K); None counts all alike.
    """
    amax = np.abs(matrix).max(axis=-1, initial=0.0)
    each = np.ones(matrix.shape[-1]) if importance is None else importance[:, None, :]
    best = np.full(amax.shape, np.inf)
    scale = largest_scale(matrix)
    for share in _SHARES:
        candidate = symmetric_scale(amax * share).astype(np.float64)
        steps = candidate[..., None]
        rounded = np.clip(np.rint(matrix / steps), -_LEVELS, _LEVELS) * steps
        error = ((rounded - matrix) ** 2 * each).sum(axis=-1)
        better = error < best
        best = np.where(better, error, best)
        scale = np.where(better, candidate, scale)
    return scale
