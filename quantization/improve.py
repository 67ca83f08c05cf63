"""Better INT8 with no layer given up: ranges, rounding and biases from the samples.

The walk through the network does, layer by layer in this order: choose the range of each new
activation (range_choice), fit and round the weights to the input that INT8 hands them
(weight_clipping, weight_rounding), take the mean error off the bias (bias_correction). Activations
are centred first where that is free (centre). What is kept is what helps on samples that the walk
has not seen.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from artefacts.graph_hash import graph_hash
from calibrators.ranges import Range, Ranges
from quantization.amend import add_bias
from quantization.execution import Arrays, Load
from quantization.graph_view import GraphView
from quantization.insert import QuantizedTensor, insert_qdq, unify_ranges
from quantization.layer_matrix import LayerMatrix, layer_matrix
from quantization.layerwise import LayerVisit, Twins
from quantization.placement import Placement, QuantizedInput
from quantization.range_choice import Reader, best_amax, candidates, fake_quantize
from quantization.weight_clipping import clipped_scale, largest_scale
from quantization.weight_rounding import refit, round_with_feedback, second_moment

__all__ = ["Improved", "Methods", "improve_layers"]

logger = logging.getLogger(__name__)
Array = NDArray[Any]

_POSITIONS = 8192  # columns sampled for the moments of a layer's input
_RANGE_POSITIONS = 2048  # for the choice of a range, which tries two dozen of them


@dataclass(frozen=True, kw_only=True)
class Methods:
    """Which improvements a walk makes.

    Attributes:
        ranges: choose activation ranges by the error of their readers.
        clipping: scales of weights by squared error instead of the largest magnitude.
        rounding: round weights with error feedback instead of to nearest.
        refitting: fit weights to the INT8 input before rounding.
        biases: take each layer's mean error off its bias.
    """

    ranges: bool = True
    clipping: bool = False
    rounding: bool = True
    refitting: bool = True
    biases: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Improved:
    """A prepared graph and everything ``insert_qdq`` needs beside a placement.

    Attributes:
        model: the graph with corrected biases; node and tensor names as before.
        ranges: of that graph.
        weights: constant → its codes and scale.
        methods: what was done.
    """

    model: onnx.ModelProto
    ranges: Ranges
    weights: Mapping[str, QuantizedTensor]
    methods: Methods

    def quantized(self, placement: Placement) -> onnx.ModelProto:
        """The INT8 model."""
        return insert_qdq(self.model, placement, self.ranges, weight_overrides=self.weights)


def improve_layers(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Ranges,
    samples: Sequence[Arrays],
    load: Load,
    *,
    methods: Methods,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Improved:
    """One walk over a prepared model with all ``methods``.

    Args:
        model: the prepared model; it is not changed.
        placement: of it.
        ranges: calibrated; kept for tensors that share a scale, and tried for the others.
        samples: feeds, one sample each, that the ranges were calibrated on.
        load: runs a model.
        methods: what to do.
        seed: of the choice of positions.
        progress: called with nodes done and their number.

    Raises:
        DataError: no samples.
        ModelError: a node cannot be run.
    """
    view = GraphView(model)
    walk = _Walk(view, placement, unify_ranges(ranges, placement), methods, seed)
    twins = Twins(view=view, load=load, samples=samples, correct=methods.biases)
    twins.walk(walk.decide, progress)
    corrected = add_bias(model, twins.shifts)
    new = ranges.replace(walk.chosen)
    return Improved(
        model=corrected,
        ranges=dataclasses.replace(new, graph_hash=graph_hash(corrected)),
        weights=walk.weights,
        methods=methods,
    )


class _Walk:
    """The decisions of one walk."""

    def __init__(
        self, view: GraphView, placement: Placement, ranges: Ranges, methods: Methods, seed: int
    ) -> None:
        self._view = view
        self._ranges = ranges
        self._methods = methods
        self._seed = seed
        self._fixed = dict(placement.fixed)
        grouped = {name for group in placement.shared for name in group}
        self._kept = grouped | set(placement.fixed)
        self._edges: dict[str, list[QuantizedInput]] = {}
        for edge in placement.activations:
            self._edges.setdefault(edge.node, []).append(edge)
        self._axes = {w.node: w for w in placement.weights}
        self._nodes = {node.name: node for node in view.nodes}
        self._readers = {
            e.observed: [o for o in placement.activations if o.observed == e.observed]
            for e in placement.activations
        }
        self.chosen: dict[str, Range] = {}
        self.weights: dict[str, QuantizedTensor] = {}

    def decide(self, visit: LayerVisit) -> tuple[Mapping[int, float], Mapping[str, Array]]:
        """Ranges of a node's quantized inputs, and its INT8 weight as floats."""
        amax = {e.index: self._amax(e, visit) for e in self._edges.get(visit.node.name, ())}
        weight = self._axes.get(visit.node.name)
        layer = None if weight is None else layer_matrix(self._view, visit.node)
        if weight is None or layer is None or weight.axis is None or weight.index != 1:
            return amax, {}
        if weight.tensor not in self.weights:
            self.weights[weight.tensor] = self._round(layer, visit, amax.get(0))
        found = self.weights[weight.tensor]
        scale = found.scale.reshape(
            [-1 if a == weight.axis else 1 for a in range(found.codes.ndim)]
        )
        return amax, {weight.tensor: (found.codes * scale).astype(layer.weight.dtype)}

    def _amax(self, edge: QuantizedInput, visit: LayerVisit) -> float:
        name = edge.observed
        if name in self._fixed:
            return self._fixed[name]
        if name in self._kept or not self._methods.ranges:
            return self._ranges[name].amax
        if name not in self.chosen:
            self.chosen[name] = self._choose(edge, visit)
        return self.chosen[name].amax

    def _choose(self, edge: QuantizedInput, visit: LayerVisit) -> Range:
        exact, actual = visit.exact[edge.tensor], visit.actual[edge.tensor]
        largest = max(float(np.abs(x).max(initial=0.0)) for x in exact)
        given = self._ranges[edge.observed]
        if largest == 0.0:
            return given
        readers = []
        for other in self._readers[edge.observed]:
            if other.tensor == edge.tensor:
                node = self._nodes[other.node]
                layer = layer_matrix(self._view, node) if other.index == 0 else None
                readers.append(self._reader(layer, exact, actual))
        amax = best_amax(
            readers, candidates(largest, [given.amax]), centred_errors=self._methods.biases
        )
        return Range(amax=amax, method="reader error")

    def _reader(
        self, layer: LayerMatrix | None, exact: Sequence[Array], actual: Sequence[Array]
    ) -> Reader:
        seen = _sampled(layer, exact, actual, _RANGE_POSITIONS, self._seed)
        matrix = None if layer is None else layer.matrix
        return Reader(exact=seen[0], actual=seen[1], matrix=matrix)

    def _round(self, layer: LayerMatrix, visit: LayerVisit, amax: float | None) -> QuantizedTensor:
        methods, matrix, hessian = self._methods, layer.matrix, None
        if methods.rounding or methods.refitting or methods.clipping:
            name = layer.node.inputs[0]
            exact, actual = _sampled(
                layer, visit.exact[name], visit.actual[name], _POSITIONS, self._seed, amax
            )
            exact, actual = exact.astype(np.float64), actual.astype(np.float64)
            if methods.biases:
                exact, actual = exact - exact.mean(axis=0), actual - actual.mean(axis=0)
            hessian = second_moment(actual, actual)
            if methods.refitting:
                size = matrix.shape[-1]
                cross = second_moment(exact, actual)
                matrix = refit(matrix, cross, hessian, ridge=size / len(visit.exact[name]))
        if methods.clipping:
            power = None if hessian is None else np.diagonal(hessian, axis1=1, axis2=2)
            scale = clipped_scale(matrix, power)
        else:
            scale = largest_scale(matrix)
        if methods.rounding and hessian is not None:
            codes = round_with_feedback(matrix, scale, hessian)
        else:
            codes = np.clip(np.rint(matrix / scale[..., None]), -127, 127).astype(np.int8)
        return QuantizedTensor(
            codes=np.ascontiguousarray(layer.restore(codes)),
            scale=scale.reshape(-1).astype(np.float32),
        )


def _sampled(
    layer: LayerMatrix | None,
    exact: Sequence[Array],
    actual: Sequence[Array],
    wanted: int,
    seed: int,
    amax: float | None = None,
) -> tuple[Array, Array]:
    """Columns of both inputs at the same random positions; a layer of None: single values."""
    rng = np.random.default_rng(seed)
    parts: tuple[list[Array], list[Array]] = ([], [])
    share = max(1, wanted // len(exact))
    for x, y in zip(exact, actual, strict=True):
        y = y if amax is None else fake_quantize(y, amax)
        total = x.size if layer is None else layer.positions(x)
        chosen = np.sort(rng.choice(total, min(share, total), replace=False))
        for part, values in zip(parts, (x, y), strict=True):
            if layer is None:
                part.append(values.reshape(-1)[chosen][:, None, None])
            else:
                part.append(layer.columns(values, chosen))
    return np.concatenate(parts[0]), np.concatenate(parts[1])
