"""Whether a layer's weights are fitted to its INT8 input: samples they are not fitted to say.

Fitted weights make up for what INT8 layers before did to the input, and can fit the noise of a few
samples just as well. So they are fitted to three quarters of the samples first, and given up where
the output of the other quarter is clearly further from float:

    E ‖W x - M x'‖² > 1.1 E ‖W x - W x'‖²

Less is chance: over MobileNetV2 the two errors differ by 0.5 %, either way, and a walk that gave up
every layer with the larger one ended 2.4 dB below one that fitted all.

The layers before were fitted to these samples, too, so a walk over the network is judged by others
(quantization.improve.improve).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.layer_matrix import SampledColumns
from quantization.improve.weights.rounding import refit, second_moment
from quantization.improve.weights.wide import round_in_blocks

__all__ = ["Columns", "checking", "fit_in_blocks", "fit_weights"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

_CHECKED = 4  # every fourth sample
_MOST_CHECKED_ROWS = 64  # of a wide layer's groups: checking all is two thirds of its time
_HARMFUL = 1.1  # times the error; less is chance, and fits of many layers help each other


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """What a layer reads at sampled positions, (n, groups, K) each; those that check come first.

    Attributes:
        exact: of the float copy.
        actual: of the INT8 copy, at the same positions.
        checked: rows of the samples that a fit is checked with; none where there is one sample.
    """

    exact: Array
    actual: Array
    checked: int

    @classmethod
    def of(cls, exact: SampledColumns, actual: SampledColumns, *, centred: bool) -> Columns:
        """Of columns whose first samples are those of :func:`checking`.

        Args:
            exact: of the float copy.
            actual: of the INT8 copy; what both hold is given away.
            centred: without the mean of each column, whose error is taken off the bias.
        """
        starts = (*exact.starts, len(exact.rows))
        checked = starts[len(checking(len(exact.starts)))]
        if centred:
            for rows in (exact.rows, actual.rows):
                rows -= rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        return cls(exact=exact.rows, actual=actual.rows, checked=checked)

    def divided(self) -> tuple[Columns, Columns]:
        """What is fitted to, and what is checked with."""
        return self._of(slice(self.checked, None)), self._of(slice(self.checked))

    def moments(self) -> tuple[Floats, Floats]:
        """Mean of x x'ᵀ and of x' x'ᵀ, (groups, K, K)."""
        cross = second_moment(self.exact, self.actual)
        return cross, second_moment(self.actual, self.actual)

    def _of(self, rows: slice) -> Columns:
        return Columns(exact=self.exact[rows], actual=self.actual[rows], checked=0)


def checking(count: int) -> range:
    """Numbers of the samples, of so many, that a fit is checked with; none of a single one."""
    return range(0, count if count > 1 else 0, _CHECKED)


def fit_weights(matrix: Floats, columns: Columns, *, ridge: float) -> tuple[Floats, Floats]:
    """The real weights to round, and the mean of x' x'ᵀ, (groups, K, K).

    Args:
        matrix: W, (groups, C_out / groups, K).
        columns: what the layer reads.
        ridge: λ as a share of the mean of H's diagonal.
    """
    some, others = columns.divided()
    cross, hessian = some.moments()
    if not columns.checked:
        return matrix, hessian
    cross_other, hessian_other = others.moments()
    share = columns.checked / len(columns.exact)
    trial = refit(matrix, cross, hessian, ridge=ridge / (1 - share))
    hessian = (1 - share) * hessian + share * hessian_other
    if not _holds(trial, matrix, others):
        return matrix, hessian
    cross = (1 - share) * cross + share * cross_other
    return refit(matrix, cross, hessian, ridge=ridge), hessian


def fit_in_blocks(
    matrix: Array,
    scale: Floats,
    columns: Columns,
    *,
    ridge: float | None,
    partners: NDArray[np.int64] | None,
) -> NDArray[np.int8]:
    """Codes of a wide layer: :func:`round_in_blocks`, fitted where that holds for others.

    Args:
        matrix: the weights, (groups, C_out / groups, K).
        scale: (groups, C_out / groups).
        columns: what the layer reads.
        ridge: λ as a share of the mean square of the INT8 input; None does not fit.
        partners: of the K weights, where no pair of codes may saturate (graphs.pairs).
    """
    every = slice(None)

    def codes(read: Columns, ridge: float | None, rows: slice = every) -> NDArray[np.int8]:
        part, steps = matrix[:, rows], scale[:, rows]
        return round_in_blocks(part, steps, read.exact, read.actual, ridge=ridge, partners=partners)

    some, others = columns.divided()
    if ridge is None or not columns.checked:
        return codes(columns, None)
    ridge_of_some = ridge * len(columns.exact) / len(some.exact)
    rows = slice(None, None, -(-matrix.shape[1] // _MOST_CHECKED_ROWS))
    fitted, plain = (
        codes(some, each, rows) * scale[:, rows, None] for each in (ridge_of_some, None)
    )
    holds = _holds(fitted, matrix[:, rows], others, plain)
    return codes(columns, ridge if holds else None)


def _holds(fitted: Floats, matrix: Array, others: Columns, plain: Array | None = None) -> bool:
    """Whether fitted weights are no worse for the output than those there were."""
    wanted = _product(others.exact, matrix)
    errors = [
        float(np.square(_product(others.actual, weights) - wanted).sum())
        for weights in (fitted, matrix if plain is None else plain)
    ]
    return errors[0] < _HARMFUL * errors[1]


def _product(columns: Array, matrix: Array) -> Array:
    """(n, groups, K) by (groups, C_out / groups, K) → (groups, n, C_out / groups)."""
    left = columns.transpose(1, 0, 2).astype(np.float32, copy=False)
    return np.asarray(left @ matrix.transpose(0, 2, 1).astype(np.float32))
