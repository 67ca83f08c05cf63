"""The decisions of one walk: the grid of each activation, the codes of each weight."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibrators.ranges.ranges import Ranges
from graphs.layer_matrix import LayerMatrix, layer_matrix, sample_columns
from graphs.operators import CONVOLUTION_OPS, WEIGHTED_OPS
from graphs.qdq import copies
from graphs.view import GraphView
from quantization.improve.centring import centrable
from quantization.improve.checkpoint import KeptWalk
from quantization.improve.methods import Methods
from quantization.improve.range_choice import RANGE_POSITIONS, Reader, best_grid, candidates
from quantization.improve.walk.float_and_int8 import Decision, LayerVisit
from quantization.improve.walk.grid import Grid
from quantization.improve.walk.readings import Reading, moves_alone, readings
from quantization.improve.weights.fitting import Columns, checking, fit_in_blocks, fit_weights
from quantization.improve.weights.rounding import largest_scale, round_with_feedback, second_moment
from quantization.improve.weights.wide import WIDEST_WHOLE
from quantization.placement import Placement, QuantizedInput, QuantizedWeight
from quantization.write.bounded_weights import bounded_codes, bounded_scale, partners_of
from quantization.write.insert import QuantizedTensor

__all__ = ["Decisions"]

Array = NDArray[Any]

_WORTH_A_SUB = 0.7  # of the step, or less
_POSITIONS = 8192  # columns sampled for the moments of a layer's input


class Decisions:
    """The decisions of one walk."""

    def __init__(
        self,
        view: GraphView,
        placement: Placement,
        ranges: Ranges,
        methods: Methods,
        *,
        seed: int,
        kept: KeptWalk | None = None,
    ) -> None:
        self._view = view
        self._moves = partial(moves_alone, view)
        self._ranges = ranges
        self._methods = methods
        self._seed = seed
        self._fixed = dict(placement.fixed)
        grouped = {name for group in placement.shared for name in group}
        self._kept = grouped | set(placement.fixed) | _factors(view, placement)
        self._edges: dict[str, list[QuantizedInput]] = {}
        for edge in placement.activations:
            self._edges.setdefault(edge.node, []).append(edge)
        self._weights = {w.node: w for w in placement.weights}
        self._nodes = {node.name: node for node in view.nodes}
        self._readers = {
            e.observed: [o for o in placement.activations if o.observed == e.observed]
            for e in placement.activations
        }
        self._unsigned = frozenset(placement.unsigned)
        self.int8_nodes = tuple(self._weights)
        # Unsigned codes resolve as finely as centred ones, with no other bounds and biases.
        movable = centrable(view, placement) if methods.centring else {}
        self.centrable = {n: plan for n, plan in movable.items() if n not in self._unsigned}
        kept = KeptWalk() if kept is None else kept
        self._keep = kept.keep
        self.grids, self.weights = kept.grids, kept.weights

    def decide(self, visit: LayerVisit) -> Decision:
        """Grids of a node's quantized inputs, and its INT8 weight as floats."""
        grids = {e.index: self._grid(e, visit) for e in self._edges.get(visit.node.name, ())}
        weight = self._weights.get(visit.node.name)
        layer = None if weight is None else layer_matrix(self._view, visit.node)
        if weight is None or layer is None or weight.axis is None or weight.index != 1:
            return grids, {}
        if weight.tensor not in self.weights:
            found = self._round(layer, weight, visit, grids.get(0))
            self.weights[weight.tensor] = found
            self._keep()
        values = self._values(weight).astype(layer.weight.dtype, copy=False)
        return grids, {weight.tensor: values}

    def rounded(self, tensor: str) -> Array | None:
        """The values of a constant's codes; None where it has none."""
        of_it = (weight for weight in self._weights.values() if weight.tensor == tensor)
        weight = next(of_it, None)
        return self._values(weight) if weight is not None and tensor in self.weights else None

    def _values(self, weight: QuantizedWeight) -> Array:
        found = self.weights[weight.tensor]
        shape = [-1 if axis == weight.axis else 1 for axis in range(found.codes.ndim)]
        return np.asarray(found.codes * found.scale.reshape(shape))

    def _grid(self, edge: QuantizedInput, visit: LayerVisit) -> Grid:
        name = edge.observed
        unsigned = name in self._unsigned
        if name in self._fixed:
            return Grid(amax=self._fixed[name], unsigned=unsigned)
        if name in self._kept or not self._methods.ranges:
            return Grid(amax=self._ranges[name].amax, unsigned=unsigned)
        if name not in self.grids:
            self.grids[name] = self._choose(edge, visit)
        return self.grids[name]

    def _choose(self, edge: QuantizedInput, visit: LayerVisit) -> Grid:
        exact, actual = visit.exact[edge.tensor], visit.actual[edge.tensor]
        largest = max(float(np.abs(x).max(initial=0.0)) for x in exact)
        given = self._ranges[edge.observed].amax
        if largest == 0.0:
            return Grid(amax=given, unsigned=edge.observed in self._unsigned)
        read = [
            reading
            for other in self._readers[edge.observed]
            if other.tensor == edge.tensor
            for reading in readings(self._view, self._nodes[other.node], other.index, self._moves)
        ]
        readers = [self._reader(reading, exact, actual) for reading in read]
        unsigned = edge.observed in self._unsigned
        plan = self.centrable.get(edge.observed)
        if plan is not None and plan.producer is not None:
            grids = candidates(largest, [given], low=plan.low)
            if grids:
                return self._best(readers, grids)
        grids = candidates(largest, [given], unsigned=unsigned)
        maps = any(reading.node.op_type in CONVOLUTION_OPS for reading in read)
        usual = None if maps else Grid(amax=given, unsigned=unsigned)
        plain = self._best(readers, grids, usual)
        if plan is None or plan.producer is not None:
            return plain
        low, high = (float(op([op(x) for x in exact])) for op in (np.min, np.max))
        moved = self._best(readers, candidates(max(high, given), [given], low=low) or [plain])
        # The error is no guide here: that of the layers before hides what a Sub wins.
        return moved if moved.amax < _WORTH_A_SUB * plain.amax else plain

    def _best(
        self, readers: Sequence[Reader], grids: Sequence[Grid], usual: Grid | None = None
    ) -> Grid:
        return best_grid(readers, grids, centred_errors=self._methods.biases, usual=usual)[0]

    def _reader(self, reading: Reading, exact: Sequence[Array], actual: Sequence[Array]) -> Reader:
        layer = layer_matrix(self._view, reading.node) if reading.index == 0 else None
        read, of_int8 = (
            sample_columns(
                layer, values, wanted=RANGE_POSITIONS, seed=self._seed, change=reading.moved
            )
            for values in (exact, actual)
        )
        return Reader(
            exact=read.rows,
            actual=of_int8.rows,
            matrix=None if layer is None else layer.judging,
            starts=read.starts,
        )

    def _round(
        self, layer: LayerMatrix, weight: QuantizedWeight, visit: LayerVisit, grid: Grid | None
    ) -> QuantizedTensor:
        methods = self._methods
        partners = partners_of(self._view, weight) if weight.bounded else None
        fitted = methods.rounding or methods.refitting
        columns = self._columns(layer, visit, grid) if fitted else None
        ridge = layer.inputs / len(visit.exact[layer.node.inputs[0]])
        if columns is not None and layer.inputs > WIDEST_WHOLE:
            return self._round_wide(layer, columns, partners, ridge)
        matrix, hessian = layer.matrix, None
        if columns is not None and methods.refitting:
            matrix, hessian = fit_weights(matrix, columns, ridge=ridge)
        elif columns is not None:
            hessian = second_moment(columns.actual, columns.actual)
        scale = largest_scale(matrix)
        if partners is not None:
            power = None if hessian is None else np.diagonal(hessian, axis1=1, axis2=2)
            importance = None if power is None else power[:, None]
            scale = bounded_scale(matrix, scale, partners, importance)
        if methods.rounding and hessian is not None:
            codes = round_with_feedback(matrix, scale, hessian, partners)
        elif partners is not None:
            codes = bounded_codes(matrix, scale, partners)
        else:
            codes = np.clip(np.rint(matrix / scale[..., None]), -127, 127).astype(np.int8)
        return _stored(layer, codes, scale)

    def _round_wide(
        self,
        layer: LayerMatrix,
        columns: Columns,
        partners: NDArray[np.int64] | None,
        ridge: float,
    ) -> QuantizedTensor:
        """Block by block; by a scale of the weights as they are, which a fit changes little."""
        matrix = layer.stored
        scale = largest_scale(matrix)
        if partners is not None:
            x = columns.actual
            power = np.einsum("ngk,ngk->gk", x, x, dtype=np.float64) / len(x)
            scale = bounded_scale(matrix.astype(np.float64), scale, partners, power[:, None])
        codes = fit_in_blocks(
            matrix,
            scale,
            columns,
            ridge=ridge if self._methods.refitting else None,
            partners=partners,
        )
        return _stored(layer, codes, scale)

    def _columns(self, layer: LayerMatrix, visit: LayerVisit, grid: Grid | None) -> Columns:
        """What the layer reads at sampled positions, in float and in INT8."""
        name = layer.node.inputs[0]
        moved = grid if grid is not None and grid.centre else None  # padding is not
        then = grid if moved is None else None  # zeros of the padding stay zeros
        first = checking(len(visit.exact[name]))
        columns = partial(sample_columns, layer, wanted=_POSITIONS, seed=self._seed, first=first)
        return Columns.of(
            columns(visit.exact[name]),
            columns(visit.actual[name], change=moved, then=then),
            centred=self._methods.biases,
        )


def _factors(view: GraphView, placement: Placement) -> set[str]:
    """Tensors that a product of two activations reads: they keep the range that calibration gave.

    The error of a factor by itself says little about the product: cutting off the few large
    probabilities of a Softmax took a keyword transformer from 31.2 to 22.2 dB.
    """
    weighted = {weight.node for weight in placement.weights}
    return {
        edge.observed
        for edge in placement.activations
        for use in view.uses(edge.tensor)
        if (use.node.name, use.index) == (edge.node, edge.index)
        for reading in readings(view, use.node, use.index, copies)
        if reading.node.op_type in WEIGHTED_OPS and reading.node.name not in weighted
    }


def _stored(layer: LayerMatrix, codes: Array, scale: Array) -> QuantizedTensor:
    """Codes (groups, C_out / groups, K) as the layer stores its weight."""
    return QuantizedTensor(
        codes=np.ascontiguousarray(layer.restore(codes)),
        scale=scale.reshape(-1).astype(np.float32),
    )
