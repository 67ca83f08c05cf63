"""Better INT8 of the same layers: ranges, rounding and biases from the samples.

First, channels are equalised where that is exact (channels), in the way that brings the whole
network closer to float. Then one walk through the network does, layer by layer: choose the grid of
each new activation (range_choice; centred where that is free, centring), fit and round the weights
to the input that INT8 hands them (weights), take the mean error off the bias (walk). What is kept
is what helps on samples that the walk has not seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from calibrators.ranges.ranges import READER_ERROR, READER_ERROR_CENTRED, Range, Ranges
from graphs.amend import add_bias
from graphs.identity import graph_hash
from graphs.macs import sample_macs
from graphs.tensor_data import without_data_of
from graphs.view import GraphView
from quantization.improve.centring import centring_shifts, move_bounds
from quantization.improve.channels.choice import equalized
from quantization.improve.checkpoint import Checkpoint, Walks
from quantization.improve.decisions import Decisions
from quantization.improve.held_out import divided
from quantization.improve.improved import Improved, as_calibrated
from quantization.improve.methods import EFFORTS, NOTHING, Methods
from quantization.improve.trials import Comparison, Trial
from quantization.improve.walk.float_and_int8 import FloatAndInt8
from quantization.improve.walk.grid import Grid
from quantization.measure.execution import Arrays
from quantization.placement import Placement
from quantization.write.insert import unify_ranges

__all__ = ["improve", "improve_layers"]

Progress = Callable[[int, int], None]

_COMPARED = 64  # samples that starts are compared on
_SEED = 0  # of the split and the sampled positions: equal samples, equal results


class HasInputs(Protocol):
    """A sample or a batch of ``calibrators``."""

    @property
    def inputs(self) -> Arrays:
        """Input name → array."""
        ...


def improve(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Ranges,
    samples: Iterable[Arrays | HasInputs],
    *,
    variants: Sequence[Methods] | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Improved, tuple[Trial, ...]]:
    """Better INT8 of the same placement: ranges, rounding and biases fitted to samples.

        best, trials = quantization.improve(prepared, placement, ranges, samples)
        int8 = best.quantized(placement)

    Args:
        model: the prepared model; it is not changed.
        placement: of it.
        ranges: calibrated on the samples.
        samples: calibration samples, from ``calibrators.open_samples`` or as dicts of arrays, one
            sample each or the model's fixed batch (``calibrators.batches``); an eighth to a quarter
            is held out to choose by.
        variants: what to try; ``NOTHING`` among them is calibration alone. None is what
            :data:`EFFORTS` tries by default.
        progress: called with steps done and their number.
        checkpoint: keeps what is decided, so that the same improvement goes on from it.

    Returns:
        The variant with the best mean SQNR of held-out samples, and the trial of each, in order.

    Raises:
        DataError: fewer than 4 samples.
        ModelError: a model cannot be run.
    """
    feeds = [sample if isinstance(sample, Mapping) else sample.inputs for sample in samples]
    view = GraphView(model)
    if variants is None:
        variants = EFFORTS["default"].variants(sample_macs(model, feeds[0] if feeds else {}))
    walks = sum(methods != NOTHING for methods in variants)
    if progress is not None:  # before the first layer, which may take a minute
        progress(0, walks * len(view.computed))
    fit, held = divided(model, feeds, walks, _SEED)
    comparison = Comparison.of(model, held)
    kept = None if checkpoint is None else checkpoint.of(fit)
    walk = _Walk(placement=placement, samples=fit, walks=kept)
    results, trials = [], []
    for result in _results(walk, as_calibrated(model, ranges), variants, progress):
        results.append(result)
        trials.append(comparison.trial(result, placement))
    best = max(range(len(trials)), key=lambda number: trials[number].mean_db)
    return results[best].whole(), tuple(trials)


def improve_layers(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Ranges,
    samples: Sequence[Arrays],
    *,
    methods: Methods,
    seed: int = 0,
    progress: Progress | None = None,
) -> Improved:
    """One walk over a prepared model with all ``methods``.

    Args:
        model: the prepared model; it is not changed.
        placement: of it.
        ranges: calibrated; kept for tensors that share a scale, and tried for the others.
        samples: feeds that the ranges were calibrated on, one sample each or a fixed batch.
        methods: what to do.
        seed: of the choice of positions.
        progress: called with nodes done and their number.

    Raises:
        DataError: no samples.
        ModelError: a node cannot be run.
    """
    start = as_calibrated(model, ranges)
    if methods.equalizing:
        start = _equalized(start, placement, samples, seed)[0]
    return _Walk(placement=placement, samples=samples, seed=seed)(start, methods, progress).whole()


def _equalized(
    plain: Improved, placement: Placement, samples: Sequence[Arrays], seed: int
) -> tuple[Improved, ...]:
    """Networks to begin with: channels equalised as their readers judge, and otherwise."""
    found = equalized(plain.model, placement, plain.ranges, samples, seed=seed)
    return tuple(as_calibrated(*each) for each in found)


def _closest(
    starts: Sequence[Improved],
    placement: Placement,
    model: onnx.ModelProto,
    samples: Sequence[Arrays],
) -> Improved:
    """The start whose outputs, rounded to nearest, are closest to float; ties go to the first.

    Readers see no further than their own sums, and not what adds up along a residual stage.
    """
    if len(starts) == 1:
        return starts[0]
    comparison = Comparison.of(model, samples[:_COMPARED])
    levels = [comparison.trial(start, placement).mean_db for start in starts]
    return starts[int(np.argmax(levels))]


def _results(
    walk: _Walk, plain: Improved, variants: Sequence[Methods], progress: Progress | None
) -> Iterator[Improved]:
    """What each variant makes of the network, or of the one with equalised channels.

    That is made when it is first asked for, and given away to the last that asks: it is a copy of
    the network.
    """
    walks = sum(methods != NOTHING for methods in variants)
    uses = sum(methods.equalizing for methods in variants)
    done, start = 0, None
    for methods in variants:
        if methods == NOTHING:
            yield plain
            continue
        base, step = plain, _part(progress, done, walks)
        if methods.equalizing:
            if start is None:
                start = _start(walk, plain)
            base, uses = start, uses - 1
        own = not uses and base.model is not plain.model
        yield walk(base, methods, step, own=own)
        done += 1


def _start(walk: _Walk, plain: Improved) -> Improved:
    """The equalised network to begin with; no other is held while it is walked."""
    starts = _equalized(plain, walk.placement, walk.samples, walk.seed)
    return _closest(starts, walk.placement, plain.model, walk.samples)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Walk:
    """All methods but the equalisation, which a start has behind it.

    Attributes:
        placement: of the network.
        samples: that it is fitted to.
        seed: of the positions.
        walks: where decisions are kept; None for nowhere.
    """

    placement: Placement
    samples: Sequence[Arrays]
    seed: int = _SEED
    walks: Walks | None = None

    def __call__(
        self, start: Improved, methods: Methods, progress: Progress | None, *, own: bool = False
    ) -> Improved:
        """A network with these methods; that of an ``own`` start, nobody else's, is edited.

        Another start is copied without the weights that have codes now.
        """
        view = GraphView(start.model)
        unified = unify_ranges(start.ranges, self.placement)
        decisions = self._decisions(view, unified, methods)
        both = FloatAndInt8(view=view, samples=self.samples, correct=methods.biases)
        try:
            both.walk(decisions.decide, progress)
        finally:
            if self.walks is not None:  # Ctrl-C loses nothing
                self.walks.save()
        centres = {name: grid.centre for name, grid in decisions.grids.items() if grid.centre}
        shifts = dict(both.shifts)
        moved = centring_shifts(view, decisions.centrable, centres, decisions.rounded)
        for name, shift in moved.items():
            shifts[name] = shifts.get(name, np.zeros(1)) + shift
        moved_float = centring_shifts(view, decisions.centrable, centres)
        released = _released(decisions, both, moved, moved_float)
        elsewhere = {} if own else _coded(view, decisions.weights)
        edited = start.model if own else without_data_of(start.model, elsewhere.keys())
        centred = move_bounds(edited, decisions.centrable, centres, own=True)
        changed = add_bias(centred, shifts, own=True)
        new = start.ranges.replace({name: _range(grid) for name, grid in decisions.grids.items()})
        return Improved(
            model=changed,
            ranges=dataclasses.replace(new, graph_hash=graph_hash(changed)),
            weights=decisions.weights,
            methods=methods,
            released=released,
            floating={n: -s for n, s in both.shifts.items() if n not in decisions.int8_nodes},
            elsewhere=elsewhere,
        )

    def _decisions(self, view: GraphView, ranges: Ranges, methods: Methods) -> Decisions:
        """Those that were kept are not made again."""
        kept = None
        if self.walks is not None:
            kept = self.walks.walk(view.model, self.placement, ranges, methods, self.seed)
        return Decisions(view, self.placement, ranges, methods, seed=self.seed, kept=kept)


def _coded(view: GraphView, names: Collection[str]) -> dict[str, onnx.TensorProto]:
    """The weights with codes that nothing in float reads beside."""
    stored = view.initializers
    return {name: stored[name] for name in names if name in stored and view.sole_use(name)}


def _released(
    decisions: Decisions,
    both: FloatAndInt8,
    moved: Mapping[str, NDArray[np.float64]],
    moved_float: Mapping[str, NDArray[np.float64]],
) -> dict[str, NDArray[np.float64]]:
    """Bias of a layer in float less its bias in INT8.

    Its own correction goes, and a centred input is made up for by the sums of the float weight.
    """
    found = {}
    for name in decisions.int8_nodes:
        if name in both.shifts or name in moved:
            shift = moved_float.get(name, np.zeros(1)) - moved.get(name, np.zeros(1))
            found[name] = shift - both.shifts.get(name, np.zeros(1))
    return found


def _part(progress: Progress | None, number: int, parts: int) -> Progress | None:
    """Progress of part ``number`` as progress of all parts."""
    if progress is None:
        return None
    whole = progress
    return lambda done, total: whole(number * total + done, parts * total)


def _range(grid: Grid) -> Range:
    if not grid.centre:
        return Range(amax=grid.amax, method=READER_ERROR)
    why = f"moved by {-grid.centre:g} to the middle of its values"
    return Range(amax=grid.amax, method=READER_ERROR_CENTRED, why=why)
