"""Weights rounded so that the layer's output changes least, without gradients.

For a layer Y = W X whose INT8 version reads X' instead of X (what INT8 made of it), first the real
weights that come closest are found by ridge regression, then they are rounded column by column,
each column's rounding error spread over the columns not rounded yet:

    W* = argmin ‖W X - W* X'‖² + λ ‖W* - W‖²  =  (W X X'ᵀ + λ W) (X' X'ᵀ + λ I)⁻¹
    H  = X' X'ᵀ / n + d I,    U = chol(H⁻¹)ᵀ      (upper triangular)
    for each column k:   e = (w_k - Q(w_k)) / U_kk,    w_j -= e · U_kj  for all j > k

The second part is optimal brain quantization with a fixed order, largest H_kk first. λ grows with
K / n: few samples cannot say much about many weights, and W itself is the safe answer.

Sources: Frantar et al., GPTQ, 2022 (https://arxiv.org/abs/2210.17323), algorithm 1 and eq. 3;
Frantar & Alistarh, Optimal Brain Compression, 2022 (https://arxiv.org/abs/2208.11580); Nagel et
al., Up or Down? Adaptive Rounding, 2020 (https://arxiv.org/abs/2004.10568), for the objective.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.pairs import PAIR_LIMIT, within_pairs
from quantization.arithmetic import symmetric_scale

__all__ = ["largest_scale", "refit", "round_with_feedback", "second_moment"]

Floats = NDArray[np.float64]
_LEVELS = 127
_DAMPING = 0.01  # of the mean diagonal, as in GPTQ
_BLOCK = 128  # columns whose feedback is applied in one product


def largest_scale(matrix: NDArray[Any]) -> Floats:
    """Scale amax / 127 of each row: (groups, C_out / groups, K) → (groups, C_out / groups)."""
    return symmetric_scale(np.abs(matrix).max(axis=-1, initial=0.0)).astype(np.float64)


def second_moment(left: Floats, right: Floats) -> Floats:
    """Mean of left_i right_iᵀ over positions: two (n, groups, K) → (groups, K, K)."""
    a, b = left.transpose(1, 2, 0), right.transpose(1, 0, 2)
    return np.asarray(a @ b / left.shape[0])


def refit(matrix: Floats, cross: Floats, hessian: Floats, *, ridge: float) -> Floats:
    """Real weights whose output on the INT8 input is closest to the float output.

    Args:
        matrix: W, (groups, C_out / groups, K).
        cross: mean of x x'ᵀ, float input against INT8 input, (groups, K, K).
        hessian: mean of x' x'ᵀ, (groups, K, K).
        ridge: λ as a share of the mean of H's diagonal; large values return W.
    """
    size = hessian.shape[-1]
    power = np.trace(hessian, axis1=1, axis2=2) / size
    # A group whose input is always zero tells nothing: any λ > 0 keeps its weights.
    damping = np.where(power > 0, power * ridge, 1.0)[:, None, None] * np.eye(size)
    right = matrix @ (cross + damping)
    return np.asarray(np.linalg.solve(hessian + damping, right.transpose(0, 2, 1))).transpose(
        0, 2, 1
    )


def round_with_feedback(
    matrix: Floats,
    scale: Floats,
    hessian: Floats,
    partners: NDArray[np.int64] | None = None,
) -> NDArray[np.int8]:
    """Codes in [-127, 127] of each group's rows, by error feedback.

    Args:
        matrix: (groups, C_out / groups, K).
        scale: (groups, C_out / groups).
        hessian: mean of x' x'ᵀ, (groups, K, K).
        partners: of the K weights, where no pair of codes may saturate (graphs.pairs).
    """
    groups = zip(matrix, scale, hessian, strict=True)
    return np.stack([_round_group(*group, partners) for group in groups])


def _round_group(
    weights: Floats, scale: Floats, hessian: Floats, partners: NDArray[np.int64] | None
) -> NDArray[np.int8]:
    """One group: (C_out / groups, K) → codes of the same shape."""
    size = hessian.shape[0]
    diagonal = np.diag(hessian)
    order = np.argsort(-diagonal, kind="stable")
    damped = hessian[np.ix_(order, order)] + np.eye(size) * _damping(diagonal)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    rest = weights[:, order]
    codes = np.zeros(weights.shape, np.int8)
    limits = None if partners is None else PairLimits(partners, order)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        errors = np.zeros((weights.shape[0], stop - start))
        for k in range(start, stop):
            wanted = rest[:, k] / scale
            if limits is not None:
                wanted = limits.keep(k, wanted, rest, scale, codes)
            rounded = np.clip(np.rint(wanted), -_LEVELS, _LEVELS)
            codes[:, order[k]] = rounded
            errors[:, k - start] = (rest[:, k] - rounded * scale) / upper[k, k]
            rest[:, k + 1 : stop] -= np.outer(errors[:, k - start], upper[k, k + 1 : stop])
        rest[:, stop:] -= errors @ upper[start:stop, stop:]
    return codes


class PairLimits:
    """What the partner of a column leaves to it, while columns are rounded one after another."""

    def __init__(self, partners: NDArray[np.int64], order: NDArray[np.int64]) -> None:
        self._place = np.argsort(order)  # of each weight in the order of rounding
        self._partner = partners[order]

    def keep(
        self, k: int, wanted: Floats, rest: Floats, scale: Floats, codes: NDArray[np.int8]
    ) -> Floats:
        """The nearest real codes of column ``k`` that its partner allows.

        A partner that is rounded sets the limit; one that is not yet gives up half itself.
        """
        partner = int(self._partner[k])
        if partner < 0:
            return wanted
        place = int(self._place[partner])
        if place > k:
            both = np.stack([wanted, rest[:, place] / scale], axis=-1)
            return within_pairs(both, np.array([1, 0]))[:, 0]
        taken = codes[:, partner].astype(np.float64)
        high = np.where(taken > 0, PAIR_LIMIT - taken, _LEVELS)
        low = np.where(taken < 0, -PAIR_LIMIT - taken, -_LEVELS)
        return np.asarray(np.clip(wanted, low, high))


def _damping(diagonal: Floats) -> float:
    """What makes H invertible; a layer that saw only zeros gets the identity."""
    mean = float(diagonal.mean())
    return _DAMPING * mean if mean > 0 else 1.0
