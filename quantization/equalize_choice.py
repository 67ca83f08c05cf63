"""Which tensors are equalised, and how far: by the error that their readers make of them.

For every tensor that can be scaled, its readers' outputs are computed from INT8 inputs and INT8
weights, as they are and with the scales of α = ½ and α = 1. A tensor that can be scaled for
nothing is, where the error falls; one that needs a Mul of its own only where INT8 fails without:
more than a thousandth of the power lost, and four times less after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibrators.ranges import Range
from quantization.equalize import Equalizable, channel_scales
from quantization.execution import Arrays, Load
from quantization.graph_view import GraphView
from quantization.layer_matrix import LayerMatrix, layer_matrix, sample_columns
from quantization.layerwise import Decision, LayerVisit, Twins
from quantization.range_choice import RANGE_POSITIONS, Reader, best_grid, candidates
from quantization.weight_clipping import largest_scale

__all__ = ["Equalization", "choose_equalization"]

Array = NDArray[Any]

_ALPHAS = (0.5, 1.0)
_FREE_GAIN = 0.8  # of the error; less is within what sampling and rounding change
_COSTLY_GAIN, _COSTLY_ERROR = 0.25, 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Equalization:
    """The scales of one tensor.

    Attributes:
        scale: s of each channel, (C,).
        range: of the tensor after the division, all of it kept.
        free: whether neighbours take the scales, so that no Mul is needed.
        before: relative error of the readers without, a share of their variance.
        after: with.
    """

    scale: NDArray[np.float64]
    range: Range
    free: bool
    before: float
    after: float


def choose_equalization(
    view: GraphView,
    plans: Mapping[str, Equalizable],
    samples: Sequence[Arrays],
    load: Load,
    *,
    seed: int,
) -> dict[str, Equalization]:
    """The tensors worth equalising, from one float pass.

    Args:
        view: the prepared graph.
        plans: from ``equalizable``.
        samples: feeds, one sample each.
        load: runs a model.
        seed: of the positions at which errors are taken.
    """
    pending, found = dict(plans), {}
    if not pending:
        return {}

    def look(visit: LayerVisit) -> Decision:
        for tensor in visit.node.inputs:
            plan = pending.pop(tensor, None)
            if plan is not None:
                choice = _choose(view, tensor, plan, visit.exact[tensor], seed)
                if choice is not None:
                    found[tensor] = choice
        return {}, {}

    Twins(view=view, load=load, samples=samples, correct=False).walk(look)
    return found


def _choose(
    view: GraphView, tensor: str, plan: Equalizable, values: Sequence[Array], seed: int
) -> Equalization | None:
    amax = np.max([_channel_amax(x) for x in values], axis=0)
    layers = [layer for node in plan.readers if (layer := layer_matrix(view, node)) is not None]
    direct = [layer for layer in layers if layer.node.inputs[0] == tensor]
    if not direct or not amax.any():
        return None
    columns = [
        (layer, sample_columns(layer, values, wanted=RANGE_POSITIONS, seed=seed))
        for layer in direct
    ]
    before = _error(columns, np.ones(amax.size), float(amax.max()))
    tried = []
    for alpha in _ALPHAS:
        scale = channel_scales(amax, layers, alpha)
        tried.append((_error(columns, scale, float((amax / scale).max())), alpha, scale))
    after, alpha, scale = min(tried, key=lambda entry: entry[:2])
    free = plan.producer is not None
    worth = after < before * (_FREE_GAIN if free else _COSTLY_GAIN)
    if not worth or not (free or before > _COSTLY_ERROR):
        return None
    why = f"channels equalised, alpha {alpha:g}"
    new = Range(amax=float((amax / scale).max()), method="minmax", why=why)
    return Equalization(scale=scale, range=new, free=free, before=before, after=after)


def _error(
    columns: Sequence[tuple[LayerMatrix, Array]], scale: NDArray[np.float64], largest: float
) -> float:
    """Relative error of the readers, summed, with INT8 input and INT8 weights."""
    readers = []
    for layer, exact in columns:
        factors = scale[layer.channels]
        matrix = layer.matrix * factors[:, None, :]
        steps = largest_scale(matrix)[..., None]
        readers.append(
            Reader(
                exact=exact,
                actual=exact / factors,
                matrix=layer.matrix,
                rounded=np.rint(matrix / steps) * steps,
            )
        )
    return best_grid(readers, candidates(largest), centred_errors=True)[1]


def _channel_amax(values: Array) -> NDArray[np.float64]:
    axes = tuple(axis for axis in range(values.ndim) if axis != 1)
    return np.asarray(np.abs(values).max(axis=axes, initial=0.0), dtype=np.float64)
