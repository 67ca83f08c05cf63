"""Weights of a wide layer, fitted and rounded block by block of its inputs.

A fit takes matrices of K × K for K inputs: seconds at K = 4,608, minutes and gigabytes at 12,544.
A block of B inputs takes B × B, and what the blocks before it leave over (the error of the INT8
input, the rounding of their weights) is handed on as the residual of the layer's output at the
sampled positions, so that no error is forgotten:

    R = W X - W X'                                          (0 without refitting)
    for each block b:   w = W_b + (R X'_bᵀ / n) (X'_b X'_bᵀ / n + λ I)⁻¹
                        q = w rounded with feedback inside the block
                        R = R - (q - W_b) X'_b

With one block this is :mod:`quantization.improve.weights.rounding`; time and memory grow with
K · B.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from artefacts.threads import in_parallel, parts, product
from graphs.layer_matrix import Array, layer_matrix
from graphs.view import GraphView
from quantization.improve.weights.rounding import round_with_feedback
from quantization.placement import Placement

__all__ = ["BLOCK_INPUTS", "WIDEST_WHOLE", "round_in_blocks", "wide_layers"]

Floats = NDArray[np.float64]

WIDEST_WHOLE = 1152
"""Inputs of the widest layer that is fitted whole: 128 channels of 3 × 3."""
BLOCK_INPUTS = 256
"""Inputs of a block. Of layers with 2,304 and 3,000 inputs, blocks of 256 left the output 31.95 dB
and an error of 5.89, fitted whole 32.00 dB and 5.88, rounded to nearest 31.75 dB and 9.74."""
_DAMPING = 0.01  # of the mean square of the inputs, where only rounding errors are handed on


def wide_layers(view: GraphView, placement: Placement) -> tuple[str, ...]:
    """Names of the INT8 layers that are too wide to be fitted whole, in graph order."""
    placed = {weight.node for weight in placement.weights}
    layers = (layer_matrix(view, node) for node in view.nodes if node.name in placed)
    return tuple(each.node.name for each in layers if each and each.inputs > WIDEST_WHOLE)


def round_in_blocks(
    matrix: Array,
    scale: Floats,
    exact: Array,
    actual: Array,
    *,
    ridge: float | None,
    partners: NDArray[np.int64] | None = None,
) -> NDArray[np.int8]:
    """Codes in [-127, 127] of each group's rows.

    Args:
        matrix: the weights, (groups, C_out / groups, K), of any float type.
        scale: (groups, C_out / groups).
        exact: columns of the float input, (n, groups, K).
        actual: the same of what INT8 makes of it.
        ridge: λ as a share of the mean square of the INT8 input; None leaves the error of the
            input alone, and only rounding errors are handed on.
        partners: of the K weights, where no pair of codes may saturate (graphs.pairs).
    """
    codes = np.empty(matrix.shape, np.int8)
    step = _step(partners)
    for group, weights in enumerate(matrix):
        x = actual[:, group]
        share = _DAMPING if ridge is None else ridge
        power = np.einsum("nk,nk->", x, x, dtype=np.float64) / max(x.size, 1)
        damping = share * float(power) or 1.0
        left = np.zeros((len(x), len(weights)))
        if ridge is not None:
            _take_residual(left, exact[:, group], x, weights)
        for start in range(0, x.shape[-1], step):
            block = slice(start, start + step)
            pairs = None if partners is None else _shifted(partners[block], start)
            codes[group, :, block] = _round_block(
                weights[:, block], scale[group], x[:, block], left, damping, pairs
            )
    return codes


def _take_residual(left: Floats, exact: Array, actual: Array, weights: Array) -> None:
    """Write W x - W x' of each position to ``left``, (n, C_out / groups)."""

    def of(rows: slice) -> None:
        left[rows] = (exact[rows] - actual[rows]) @ weights.T

    list(in_parallel(of, parts(len(left))))


def _round_block(
    weights: Array,
    scale: Floats,
    inputs: Array,
    left: Floats,
    damping: float,
    partners: NDArray[np.int64] | None,
) -> NDArray[np.int8]:
    """Codes of one block of one group; ``left``, (n, C_out / groups), is brought up to date."""
    x = inputs.astype(np.float64)
    moment = x.T @ x / len(x)  # of a matrix and itself half is computed
    wanted = product(x.T, left) / len(x)
    change = np.linalg.solve(moment + damping * np.eye(len(moment)), wanted).T
    codes = round_with_feedback((weights + change)[None], scale[None], moment[None], partners)[0]

    def hand_on(rows: slice) -> None:
        left[:, rows] -= x @ (codes[rows] * scale[rows, None] - weights[rows]).T

    list(in_parallel(hand_on, parts(len(codes))))
    return np.asarray(codes, np.int8)


def _step(partners: NDArray[np.int64] | None) -> int:
    """Inputs of a block, no pair of which is cut apart."""
    if partners is None or not (partners >= 0).any():
        return BLOCK_INPUTS
    apart = int(np.abs(partners - np.arange(len(partners)))[partners >= 0].max())
    if not apart:  # each is its own partner
        return BLOCK_INPUTS
    return max(BLOCK_INPUTS // (2 * apart), 1) * 2 * apart


def _shifted(partners: NDArray[np.int64], start: int) -> NDArray[np.int64]:
    return np.where(partners < 0, -1, partners - start)
