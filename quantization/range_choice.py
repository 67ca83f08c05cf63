"""The range of one activation, chosen by the error its readers make.

The error of a tensor itself counts all values alike. Its readers do not: they multiply by weights,
and what they cannot see costs nothing. For reader r with weight W_r, float input x and the input
x' that INT8 layers before have made of it,

    amax = argmin over T of  Σ_r  E ‖W_r Q_T(x') - W_r x - m_r‖² / Var(W_r x)

over a sample of positions. m_r is the mean error of each channel where biases are corrected later,
else 0. Readers without weights (a residual Add) count with W = 1.

Sources: Nagel et al., A White Paper on Neural Network Quantization, 2021, section 3.1, for MSE
range setting; Nagel et al., 2020, eq. 13, for the error of the layer's output as the measure
(https://arxiv.org/abs/2106.08295, https://arxiv.org/abs/2004.10568).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantization.arithmetic import symmetric_scale

__all__ = ["Reader", "best_amax", "candidates", "fake_quantize"]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """What one reader of a tensor sees at sampled positions.

    Attributes:
        exact: columns of the float input, (n, groups, K).
        actual: columns of the input that the INT8 network gives, before this tensor's own Q.
        matrix: the weight, (groups, C_out / groups, K); None for readers without weights.
    """

    exact: Array
    actual: Array
    matrix: Array | None


def candidates(largest: float, given: Sequence[float] = ()) -> NDArray[np.float64]:
    """Ranges to try, largest first: shares of the largest magnitude, and those given.

    Args:
        largest: largest magnitude observed; 0 gives the given ones.
        given: ranges that calibration methods chose.
    """
    shares = largest * np.geomspace(1.0, 0.25, 21)
    tried = np.concatenate([shares, np.asarray(given, dtype=np.float64)])
    return np.unique(tried[tried > 0])[::-1]


def best_amax(
    readers: Sequence[Reader], tried: NDArray[np.float64], *, centred_errors: bool
) -> float:
    """The candidate with the smallest sum of relative errors; ties go to the larger.

    Args:
        readers: at least one.
        tried: from :func:`candidates`.
        centred_errors: leave the mean error of each channel out, as bias correction removes it.
    """
    total = np.zeros(len(tried))
    for reader in readers:
        exact = _outputs(reader.exact.astype(np.float32), reader.matrix)
        variance = float(exact.var(axis=0).mean()) or 1.0
        for number, amax in enumerate(tried):
            seen = fake_quantize(reader.actual.astype(np.float32), float(amax))
            error = _outputs(seen, reader.matrix) - exact
            if centred_errors:
                error -= error.mean(axis=0)
            total[number] += float((error**2).mean()) / variance
    return float(tried[int(np.argmin(total))])


def fake_quantize(x: Array, amax: float) -> Array:
    """Q and DQ of an activation as ONNX and TensorRT compute it: codes -128 to 127."""
    scale = symmetric_scale(amax)
    return np.asarray(np.clip(np.rint(x / scale), -128, 127) * scale, dtype=x.dtype)


def _outputs(columns: Array, matrix: Array | None) -> Array:
    """(n, groups, K) → what the reader makes of it, (n, groups, C_out / groups)."""
    if matrix is None:
        return columns
    product = columns.transpose(1, 0, 2) @ matrix.astype(np.float32).transpose(0, 2, 1)
    return np.asarray(product.transpose(1, 0, 2))
