"""Which channels are equalised, and how far: by the error that the readers make of them.

Two passes over the float network. The first takes the largest magnitude of each channel. In the
second, the readers of every quantized tensor are computed from INT8 inputs and INT8 weights: as
they are, and with each of three sets of scales, each with the range that suits it. Tensors whose
channels scale together (a residual stage) are judged by the sum of their errors; those that need a
Mul of their own get it only where INT8 fails without: more than 1/200 of the power lost, and four
times less after. What products read along its last axis behind a constant is judged alone (smooth).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from calibrators.ranges.ranges import READER_ERROR, SMALLEST_AMAX, Range, Ranges
from graphs.channel_groups import ChannelGroups
from graphs.layer_matrix import LayerMatrix, layer_matrix, sample_columns
from graphs.view import GraphView
from quantization.improve.channel_amax import channel_amax
from quantization.improve.equalize import equalize, group_scales, insert_scalings, scalable
from quantization.improve.range_choice import RANGE_POSITIONS, Reader, candidates, errors_of_grids
from quantization.improve.smooth import absorbers, last_axis_readers, smooth, smooth_sets
from quantization.improve.walk import Decision, FloatAndInt8, LayerVisit
from quantization.improve.weights.rounding import largest_scale
from quantization.measure.execution import Arrays, load_onnxruntime
from quantization.placement import Placement

__all__ = ["equalized", "reader_errors"]

logger = logging.getLogger(__name__)
Array = NDArray[Any]
Floats = NDArray[np.float64]

_NONE, _HALF, _FULL, _MEAN = range(4)
_NAMES = ("not at all", "half way", "fully", "by the mean")
_FREE_GAIN = 0.9  # of the error; less is within what sampling changes
_SMOOTH_GAIN = 0.5  # gains of a third change a transformer's outputs by chance, 0.7 dB either way
_COSTLY_GAIN, _COSTLY_ERROR = 0.25, 5e-3
_SHARES = np.geomspace(1.0, 0.35, 6)  # of the range; a rough choice is enough to compare
_WEIGHTS_COUNT = 4.0
"""What the error of rounded weights counts, next to 1 of rounded activations. It is the same at
every position and for like samples, so sums and pools behind the layer do not average it away as
they do with that of activations. With 1, CIFAR's ResNet-20 ends at 26.6 dB instead of 28.4 (not
equalised: 28.3), MobileNetV2's logits at 34.2 instead of 35.4 (35.0), keywords' at 32.7 as with 4
(32.3); with 8 as with 4. Random weights alone prefer 1: ResNet-50's shape 46.0 instead of 45.1
(40.8)."""
_SMALLEST_OWN = 1 / 4096  # of a Mul of its own, whose 1 / s float16 still holds
_MOST_SAMPLES = 32  # enough for largest magnitudes and a thousand columns
_WIDEST_SUM = 512  # channels of a residual sum; wider ones are judged by their layers alone


def equalized(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Ranges,
    samples: Sequence[Arrays],
    *,
    seed: int,
) -> tuple[onnx.ModelProto, Ranges]:
    """The model with equalised channels, and ranges that fit (of the old graph's hash).

    Args:
        model: a prepared model; it is not changed.
        placement: of it, and of the result: names are kept.
        ranges: of its tensors.
        samples: feeds, one sample each.
        seed: of the positions at which errors are taken.
    """
    view = GraphView(model)
    groups = ChannelGroups(view)
    samples = samples[:_MOST_SAMPLES]
    quantized = {e.observed for e in placement.activations} - set(placement.fixed)
    amax = channel_amax(view, sorted(q for q in quantized if q in groups), samples)
    full, mean = group_scales(groups, amax)
    sets = np.stack([np.ones(groups.count), np.sqrt(full), full, mean])
    choices = {name: sets[:, groups.variables(name)] for name in amax}
    costly = [n for n in amax if not groups.variables(n).any() and scalable(view, n)]
    for name in costly:
        choices[name] = _own_scales(amax[name])
    behind = _behind_constants(view, placement, quantized, samples)
    for name, (largest, sets_of) in behind.items():
        amax[name], choices[name] = largest, sets_of
    costly = [name for name in costly if name not in behind]
    judge = _Judge(view, placement, choices, amax, seed)
    FloatAndInt8(view=view, load=load_onnxruntime, samples=samples, correct=False).walk(judge.look)

    chosen: dict[str, int] = {}
    scales = np.ones(groups.count)
    for members in groups.components(sorted(amax.keys() - behind.keys())):
        best = judge.best(members, _FREE_GAIN)
        variables = np.unique(np.concatenate([groups.variables(name) for name in members]))
        scales[variables] = sets[best, variables]
        chosen.update(dict.fromkeys(members, best))
        logger.debug("equalised %s: %s", _NAMES[best], ", ".join(members))
    inserted = {}
    shared = {name for group in placement.shared for name in group}
    for name in sorted(set(costly) - shared):
        best, lost = judge.best([name], _COSTLY_GAIN), judge.error(name, _NONE)
        if best and lost > _COSTLY_ERROR:
            inserted[name], chosen[name] = choices[name][best], best
            logger.debug("equalised by a Mul, %.3g of the power lost: %s", lost, name)
    smoothed = {}
    for name in behind:
        widens = any(each.widens(view) for each in absorbers(view, name, quantized))
        if best := judge.best([name], _COSTLY_GAIN if widens else _SMOOTH_GAIN):
            smoothed[name], chosen[name] = choices[name][best], best
            logger.debug("equalised by the constants before it: %s", name)
    free = smooth(equalize(model, groups, scales), smoothed, quantized)
    result = insert_scalings(free, inserted)
    changed = {
        name: judge.range_of(name, best)
        for name, best in chosen.items()
        if (choices[name][best] != 1).any()
    }
    return result, ranges.replace(changed)


def _behind_constants(
    view: GraphView, placement: Placement, quantized: Set[str], samples: Sequence[Arrays]
) -> dict[str, tuple[Floats, Floats]]:
    """Largest magnitudes and sets of scales of tensors that a constant before them can scale."""
    shared = {name for group in placement.shared for name in group}
    readers = {
        name: layers
        for name in sorted(quantized - shared)
        if (layers := last_axis_readers(view, name)) and absorbers(view, name, quantized)
    }
    amax = channel_amax(view, list(readers), samples, axis=-1)
    return {name: (amax[name], smooth_sets(amax[name], readers[name])) for name in readers}


class _Judge:
    """Errors of the readers of each tensor, for each set of scales."""

    def __init__(
        self,
        view: GraphView,
        placement: Placement,
        choices: Mapping[str, Floats],
        amax: Mapping[str, Floats],
        seed: int,
    ) -> None:
        self._view = view
        self._choices = choices
        self._amax = amax
        self._seed = seed
        self._edges = {(e.node, e.index): e for e in placement.activations}
        self.errors: dict[str, Floats] = {}

    def look(self, visit: LayerVisit) -> Decision:
        """Add the errors of one node's quantized inputs."""
        for index, tensor in enumerate(visit.node.inputs):
            edge = self._edges.get((visit.node.name, index))
            if edge is not None and edge.tensor == edge.observed and tensor in self._choices:
                errors = self._of_reader(tensor, visit, index)
                self.errors[tensor] = self.errors.get(tensor, 0.0) + errors
        return {}, {}

    def best(self, tensors: Sequence[str], gain: float) -> int:
        """The set with the smallest sum of errors; 0, none, where the gain is too small."""
        least = [self.errors[t].min(axis=1) for t in tensors if t in self.errors]
        total = sum(least, np.zeros(len(_NAMES)))
        best = int(np.argmin(total))
        return best if total[best] < gain * total[_NONE] else _NONE

    def error(self, tensor: str, number: int) -> float:
        """The least error of a tensor's readers with one set of scales."""
        return float(self.errors[tensor][number].min()) if tensor in self.errors else 0.0

    def range_of(self, tensor: str, number: int) -> Range:
        """The range with which that error is least; the widest where no reader was judged."""
        largest = _largest(self._amax[tensor], self._choices[tensor])[number]
        errors = self.errors.get(tensor)
        if errors is None or not errors[number].any():
            return Range(amax=float(largest), method="minmax", why="channels equalised")
        share = _SHARES[int(np.argmin(errors[number]))]
        return Range(amax=float(largest * share), method=READER_ERROR, why="channels equalised")

    def _of_reader(self, tensor: str, visit: LayerVisit, index: int) -> Floats:
        sets = self._choices[tensor]
        layer = layer_matrix(self._view, visit.node) if index == 0 else None
        if (sets == 1).all() or (layer is None and sets.shape[1] > _WIDEST_SUM):
            return np.zeros((len(_NAMES), len(_SHARES)))
        if layer is None:
            exact = _rows(visit.exact[tensor], RANGE_POSITIONS, self._seed)
        else:
            exact = sample_columns(
                layer, visit.exact[tensor], wanted=RANGE_POSITIONS, seed=self._seed
            )
        largest = _largest(self._amax[tensor], sets)
        pairs = zip(sets, largest, strict=True)
        return np.stack([reader_errors(layer, exact, scale, end) for scale, end in pairs])


def reader_errors(layer: LayerMatrix | None, exact: Array, scale: Floats, largest: float) -> Floats:
    """Relative error of one reader with INT8 input and, if it is a layer, INT8 weights.

    Args:
        layer: the reader; None for one without weights.
        exact: columns that it reads, (n, groups, K).
        scale: s of each channel of its input.
        largest: magnitude of the input divided by ``scale``.

    Returns:
        One error for each share of ``largest`` that is tried as the range.
    """
    if layer is None:
        matrix = np.eye(scale.size)[None]
        factors, rounded = scale[None], matrix * scale
    else:
        factors, matrix = scale[layer.channels], layer.judging
        scaled = matrix * factors[:, None, :]
        steps = largest_scale(scaled)[..., None]
        rounded = np.rint(scaled / steps) * steps
    reader = Reader(exact=exact, actual=exact / factors, matrix=matrix, rounded=rounded)
    grids = candidates(largest, shares=_SHARES)
    if layer is None:
        return errors_of_grids([reader], grids, centred_errors=True)
    errors = errors_of_grids([reader], [*grids, _as_it_is], centred_errors=True)
    return np.asarray(errors[:-1] + (_WEIGHTS_COUNT - 1) * errors[-1])


def _as_it_is(actual: Array) -> Array:
    """No grid: what is left is the error of the weights alone."""
    return actual


def _largest(amax: Floats, sets: Floats) -> Floats:
    """Largest magnitude of a tensor with each set of scales: (sets,) of (C,) and (sets, C)."""
    return np.asarray(np.maximum((amax / sets).max(axis=1, initial=0.0), SMALLEST_AMAX))


def _own_scales(amax: Floats) -> Floats:
    """The sets for a tensor that a Mul of its own scales."""
    full = np.where(amax > 0, np.maximum(amax / max(amax.max(), 1e-30), _SMALLEST_OWN), 1.0)
    return np.stack([np.ones(amax.size), np.sqrt(full), full, full])


def _rows(samples: Sequence[Array], wanted: int, seed: int) -> Array:
    """All channels at random positions: (n, 1, C)."""
    rng = np.random.default_rng(seed)
    share = max(1, wanted // len(samples))
    parts = []
    for x in samples:
        rows = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
        chosen = np.sort(rng.choice(len(rows), min(share, len(rows)), replace=False))
        parts.append(rows[chosen][:, None, :])
    return np.concatenate(parts)
