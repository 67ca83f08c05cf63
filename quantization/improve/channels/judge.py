"""What the readers of a tensor make of it with each set of scales.

They are computed from INT8 inputs and INT8 weights: as they are, and with each of three sets of
scales, each with the range that suits it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibrators.ranges.ranges import READER_ERROR, SMALLEST_AMAX, Range
from graphs.layer_matrix import LayerMatrix, layer_matrix, sample_columns
from graphs.view import GraphView, Node
from quantization.improve.range_choice import RANGE_POSITIONS, Reader, candidates, errors_of_grids
from quantization.improve.walk.float_and_int8 import Decision, LayerVisit
from quantization.improve.walk.readings import Reading, readings
from quantization.improve.weights.rounding import largest_scale
from quantization.placement import Placement

__all__ = ["HALF", "NAMES", "NONE", "Judge", "reader_errors"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

NONE, HALF = 0, 1
NAMES = ("not at all", "half way", "fully", "by the mean")
_SHARES = np.geomspace(1.0, 0.35, 6)  # of the range; a rough choice is enough to compare
_WEIGHTS_COUNT = 4.0
"""What the error of rounded weights counts, next to 1 of rounded activations. It is the same at
every position and for like samples, so sums and pools behind the layer do not average it away as
they do with that of activations. With 1, CIFAR's ResNet-20 ends at 26.6 dB instead of 28.4 (not
equalised: 28.3), MobileNetV2's logits at 34.2 instead of 35.4 (35.0), keywords' at 32.7 as with 4
(32.3); with 8 as with 4. Random weights alone prefer 1: ResNet-50's shape 46.0 instead of 45.1
(40.8)."""
_WIDEST_SUM = 512  # channels of a residual sum; wider ones are judged by their layers alone


class Judge:
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
                errors = self._of_readers(tensor, visit, index)
                self.errors[tensor] = self.errors.get(tensor, 0.0) + errors
        return {}, {}

    def best(self, tensors: Sequence[str], gain: float) -> int:
        """The set with the smallest sum of errors; 0, none, where the gain is too small."""
        least = [self.errors[t].min(axis=1) for t in tensors if t in self.errors]
        total = sum(least, np.zeros(len(NAMES)))
        best = int(np.argmin(total))
        return best if total[best] < gain * total[NONE] else NONE

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

    def _of_readers(self, tensor: str, visit: LayerVisit, index: int) -> Floats:
        found = readings(self._view, visit.node, index, _pools)
        errors = [self._of_reader(tensor, visit.exact[tensor], reading) for reading in found]
        return np.asarray(np.sum(errors, axis=0))

    def _of_reader(self, tensor: str, values: Sequence[Array], reading: Reading) -> Floats:
        sets, wanted, seed = self._choices[tensor], RANGE_POSITIONS, self._seed
        layer = layer_matrix(self._view, reading.node) if reading.index == 0 else None
        if (sets == 1).all() or (layer is None and sets.shape[1] > _WIDEST_SUM):
            return np.zeros((len(NAMES), len(_SHARES)))
        if layer is None:
            exact = _rows(values, reading.moved, wanted, seed)
        else:
            moved = reading.moved
            exact = sample_columns(layer, values, wanted=wanted, seed=seed, change=moved).rows
        largest = _largest(self._amax[tensor], sets)
        pairs = zip(sets, largest, strict=True)
        return np.stack([reader_errors(layer, exact, scale, end) for scale, end in pairs])


def _pools(node: Node) -> bool:
    """Whether a node hands on few of the values, in the channels that they were in."""
    return node.op_type == "MaxPool"


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


def _rows(
    samples: Sequence[Array], moved: Callable[[Array], Array], wanted: int, seed: int
) -> Array:
    """All channels at random positions of what each sample is moved to: (n, 1, C)."""
    rng = np.random.default_rng(seed)
    share = max(1, wanted // len(samples))
    parts = []
    for x in map(moved, samples):  # one after the other: those of a file are large
        rows = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
        chosen = np.sort(rng.choice(len(rows), min(share, len(rows)), replace=False))
        parts.append(rows[chosen][:, None, :])
    return np.concatenate(parts)
