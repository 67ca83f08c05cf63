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
from quantization.centre import centrable, centring_shifts, move_bounds
from quantization.equalize import equalizable, equalize
from quantization.equalize_choice import choose_equalization
from quantization.execution import Arrays, Load
from quantization.graph_view import GraphView
from quantization.insert import QuantizedTensor, insert_qdq, unify_ranges
from quantization.layer_matrix import LayerMatrix, layer_matrix, sample_columns
from quantization.layerwise import Decision, LayerVisit, Twins
from quantization.placement import Placement, QuantizedInput
from quantization.range_choice import RANGE_POSITIONS, Grid, Reader, best_grid, candidates
from quantization.weight_clipping import clipped_scale, largest_scale
from quantization.weight_rounding import refit, round_with_feedback, second_moment

__all__ = ["Improved", "Methods", "improve_layers"]

logger = logging.getLogger(__name__)
Array = NDArray[Any]

_POSITIONS = 8192  # columns sampled for the moments of a layer's input


@dataclass(frozen=True, kw_only=True)
class Methods:
    """Which improvements a walk makes.

    Attributes:
        ranges: choose activation ranges by the error of their readers.
        clipping: scales of weights by squared error instead of the largest magnitude.
        rounding: round weights with error feedback instead of to nearest.
        refitting: fit weights to the INT8 input before rounding.
        biases: take each layer's mean error off its bias.
        equalizing: bring channels of an activation to like ranges where that is exact.
        centring: move activations to the middle of their range where that is free; only with
            ``ranges``.
    """

    ranges: bool = True
    clipping: bool = False
    rounding: bool = True
    refitting: bool = True
    biases: bool = True
    equalizing: bool = True
    centring: bool = True


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
    if methods.equalizing:
        model, ranges = _equalized(model, placement, ranges, samples, load, seed)
    view = GraphView(model)
    walk = _Walk(view, placement, unify_ranges(ranges, placement), methods, seed)
    twins = Twins(view=view, load=load, samples=samples, correct=methods.biases)
    twins.walk(walk.decide, progress)
    centres = {name: grid.centre for name, grid in walk.grids.items() if grid.centre}
    shifts = dict(twins.shifts)
    for name, shift in centring_shifts(view, walk.centrable, centres, walk.rounded).items():
        shifts[name] = shifts.get(name, np.zeros(1)) + shift
    corrected = add_bias(move_bounds(model, walk.centrable, centres), shifts)
    new = ranges.replace({name: _range(grid) for name, grid in walk.grids.items()})
    return Improved(
        model=corrected,
        ranges=dataclasses.replace(new, graph_hash=graph_hash(corrected)),
        weights=walk.weights,
        methods=methods,
    )


def _equalized(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Ranges,
    samples: Sequence[Arrays],
    load: Load,
    seed: int,
) -> tuple[onnx.ModelProto, Ranges]:
    view = GraphView(model)
    plans = equalizable(view, placement)
    found = choose_equalization(view, plans, samples, load, seed=seed)
    for name, choice in found.items():
        logger.debug(
            "equalised %s: error %.2g, before %.2g, %s",
            name,
            choice.after,
            choice.before,
            "free" if choice.free else "by a Mul",
        )
    model = equalize(model, plans, {name: choice.scale for name, choice in found.items()})
    return model, ranges.replace({name: choice.range for name, choice in found.items()})


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
        self._weights = {w.node: w for w in placement.weights}
        self._nodes = {node.name: node for node in view.nodes}
        self._readers = {
            e.observed: [o for o in placement.activations if o.observed == e.observed]
            for e in placement.activations
        }
        self.centrable = centrable(view, placement) if methods.centring else {}
        self.grids: dict[str, Grid] = {}
        self.rounded: dict[str, Array] = {}
        self.weights: dict[str, QuantizedTensor] = {}

    def decide(self, visit: LayerVisit) -> Decision:
        """Grids of a node's quantized inputs, and its INT8 weight as floats."""
        grids = {e.index: self._grid(e, visit) for e in self._edges.get(visit.node.name, ())}
        weight = self._weights.get(visit.node.name)
        layer = None if weight is None else layer_matrix(self._view, visit.node)
        if weight is None or layer is None or weight.axis is None or weight.index != 1:
            return grids, {}
        if weight.tensor not in self.weights:
            found = self._round(layer, visit, grids.get(0))
            shape = [-1 if axis == weight.axis else 1 for axis in range(found.codes.ndim)]
            values = found.codes * found.scale.reshape(shape)
            self.weights[weight.tensor] = found
            self.rounded[weight.tensor] = values.astype(layer.weight.dtype)
        return grids, {weight.tensor: self.rounded[weight.tensor]}

    def _grid(self, edge: QuantizedInput, visit: LayerVisit) -> Grid:
        name = edge.observed
        if name in self._fixed:
            return Grid(amax=self._fixed[name])
        if name in self._kept or not self._methods.ranges:
            return Grid(amax=self._ranges[name].amax)
        if name not in self.grids:
            self.grids[name] = self._choose(edge, visit)
        return self.grids[name]

    def _choose(self, edge: QuantizedInput, visit: LayerVisit) -> Grid:
        exact, actual = visit.exact[edge.tensor], visit.actual[edge.tensor]
        largest = max(float(np.abs(x).max(initial=0.0)) for x in exact)
        given = self._ranges[edge.observed].amax
        if largest == 0.0:
            return Grid(amax=given)
        readers = []
        for other in self._readers[edge.observed]:
            if other.tensor == edge.tensor:
                node = self._nodes[other.node]
                layer = layer_matrix(self._view, node) if other.index == 0 else None
                readers.append(self._reader(layer, exact, actual))
        grids = candidates(largest, [given])
        if edge.observed in self.centrable:
            grids = candidates(largest, [given], low=self.centrable[edge.observed].low) or grids
        return best_grid(readers, grids, centred_errors=self._methods.biases)[0]

    def _reader(
        self, layer: LayerMatrix | None, exact: Sequence[Array], actual: Sequence[Array]
    ) -> Reader:
        return Reader(
            exact=sample_columns(layer, exact, wanted=RANGE_POSITIONS, seed=self._seed),
            actual=sample_columns(layer, actual, wanted=RANGE_POSITIONS, seed=self._seed),
            matrix=None if layer is None else layer.matrix,
        )

    def _round(self, layer: LayerMatrix, visit: LayerVisit, grid: Grid | None) -> QuantizedTensor:
        methods, matrix, hessian = self._methods, layer.matrix, None
        if methods.rounding or methods.refitting or methods.clipping:
            name = layer.node.inputs[0]
            read = [grid(x) if grid else x for x in visit.actual[name]]
            exact, actual = (
                sample_columns(layer, x, wanted=_POSITIONS, seed=self._seed).astype(np.float64)
                for x in (visit.exact[name], read)
            )
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


def _range(grid: Grid) -> Range:
    why = f"moved by {-grid.centre:g} to the middle of its values" if grid.centre else ""
    return Range(amax=grid.amax, method="reader error", why=why)
