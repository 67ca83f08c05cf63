"""The grid of one activation, chosen by the error its readers make.

The error of a tensor itself counts all values alike. Its readers do not: they multiply by weights,
and what they cannot see costs nothing. For reader r with weight W_r, float input x and the input
x' that INT8 layers before have made of it,

    grid = argmin over Q of  Σ_r  mean over samples of  E ‖W_r Q(x') - W_r x - m_r‖² / P_r

over positions of each sample. P_r = E ‖W_r x - μ_r‖² of the same sample is its signal; m_r is the
mean error of each channel where biases are corrected later, else 0; μ_r is the mean of each
channel. Readers without weights (a residual Add) count with W = 1. Each sample's error is taken
relative to its own signal: one loud sample would otherwise buy itself a wide range with the
resolution of all others, which its own answer does not need.

Sources: Nagel et al., A White Paper on Neural Network Quantization, 2021, section 3.1, for MSE
range setting; Nagel et al., 2020, eq. 13, for the error of the layer's output as the measure
(https://arxiv.org/abs/2106.08295, https://arxiv.org/abs/2004.10568).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.threads import in_parallel
from quantization.improve.walk.grid import Grid

__all__ = ["RANGE_POSITIONS", "Reader", "best_grid", "candidates", "errors_of_grids"]

Array = NDArray[Any]

_WORTH_A_CHANGE = 0.8
"""Of the error, or less, for another range than calibration's where products alone read a tensor:
a few dozen samples of some tokens hold few of the rare large values that a smaller range cuts off.
With any gain taken a keyword transformer ends at 30.0 dB instead of 32.0, a small ViT at 35.2
instead of 37.2 (means over three seeds). Maps have thousands of positions, and networks of
convolutions lose by it: MobileNetV1 19.4 to 18.5 dB, MobileNetV2 49.2 to 48.1."""
RANGE_POSITIONS = 1024  # columns sampled for a choice, which tries a dozen grids on them
_SHARES = np.geomspace(1.0, 0.25, 13)
_QUIETEST = 1e-2  # of the mean signal: what a sample counts as that has less, e.g. a black image


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """What one reader of a tensor sees at sampled positions.

    Attributes:
        exact: columns of the float input, (n, groups, K).
        actual: columns of the input that the INT8 network gives, before this tensor's own Q.
        matrix: the weight, (groups, C_out / groups, K); None for readers without weights.
        rounded: the weight that multiplies the INT8 input; None for ``matrix`` itself.
        starts: first row of each sample; all rows are one sample's by default.
    """

    exact: Array
    actual: Array
    matrix: Array | None
    rounded: Array | None = None
    starts: tuple[int, ...] = (0,)


def candidates(
    largest: float,
    given: Sequence[float] = (),
    *,
    low: float | None = None,
    unsigned: bool = False,
    shares: NDArray[np.float64] = _SHARES,
) -> list[Grid]:
    """Grids to try, widest first: shares of the largest magnitude, and ranges given.

    Args:
        largest: largest magnitude observed; 0 gives the given ones.
        given: ranges that calibration methods chose.
        low: lower bound of a tensor that may be centred: its grids end exactly there, so that
            the many values at the bound (zeros after a ReLU) have a code of their own.
        unsigned: the tensor is stored as uint8; it is not centred then.
        shares: of the largest magnitude.
    """
    tried = np.concatenate([largest * shares, np.asarray(given, dtype=np.float64)])
    ends = np.unique(tried[tried > 0])[::-1]
    if low is None:
        return [Grid(amax=float(end), unsigned=unsigned) for end in ends]
    return [
        Grid(amax=float(end - low) / 2, centre=float(np.float32((end + low) / 2)))
        for end in ends
        if end > low
    ]


def best_grid(
    readers: Sequence[Reader],
    grids: Sequence[Grid],
    *,
    centred_errors: bool,
    usual: Grid | None = None,
) -> tuple[Grid, float]:
    """The grid with the smallest sum of relative errors, and that sum; ties go to the first.

    Args:
        readers: at least one.
        grids: from :func:`candidates`.
        centred_errors: leave the mean error of each channel out, as bias correction removes it.
        usual: one of the grids, which stays unless another is clearly better; None for no such.
    """
    total = errors_of_grids(readers, grids, centred_errors=centred_errors)
    best = int(np.argmin(total))
    if (
        usual is not None
        and usual in grids
        and total[best] > _WORTH_A_CHANGE * total[grids.index(usual)]
    ):
        best = grids.index(usual)
    return grids[best], float(total[best])


def errors_of_grids(
    readers: Sequence[Reader], grids: Sequence[Callable[[Array], Array]], *, centred_errors: bool
) -> NDArray[np.float64]:
    """The sum of the readers' relative errors with each grid, (grids,).

    Args:
        readers: of one tensor.
        grids: from :func:`candidates`, or what else is done to the tensor.
        centred_errors: leave the mean error of each channel out, as bias correction removes it.
    """
    found = [_errors_of(reader, grids, centred_errors=centred_errors) for reader in readers]
    return np.asarray(np.sum(found, axis=0), np.float64)


def _errors_of(
    reader: Reader, grids: Sequence[Callable[[Array], Array]], *, centred_errors: bool
) -> list[float]:
    exact = _outputs(reader.exact.astype(np.float32), reader.matrix)
    actual = reader.actual.astype(np.float32)
    matrix = reader.matrix if reader.rounded is None else reader.rounded
    signal = _by_sample((exact - exact.mean(axis=0)) ** 2, reader.starts)
    signal = np.maximum(signal, signal.mean() * _QUIETEST)
    signal[signal == 0] = 1.0

    def error_of(grid: Callable[[Array], Array]) -> float:
        error = _outputs(grid(actual), matrix) - exact
        if centred_errors:
            error -= error.mean(axis=0)
        return float((_by_sample(error**2, reader.starts) / signal).mean())

    return list(in_parallel(error_of, grids))


def _by_sample(energy: Array, starts: Sequence[int]) -> Array:
    """(n, groups, C) → mean of each sample's rows, (samples,)."""
    rows = energy.reshape(len(energy), -1).mean(axis=1, dtype=np.float64)
    return np.asarray(np.add.reduceat(rows, starts) / np.diff([*starts, len(rows)]))


def _outputs(columns: Array, matrix: Array | None) -> Array:
    """(n, groups, K) → what the reader makes of it, (n, groups, C_out / groups)."""
    if matrix is None:
        return columns
    product = columns.transpose(1, 0, 2) @ matrix.astype(np.float32).transpose(0, 2, 1)
    return np.asarray(product.transpose(1, 0, 2))
