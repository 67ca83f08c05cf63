"""Better INT8 with no layer given up: ranges, rounding and biases from the samples.

First, channels are equalised where that is exact (equalize). Then one walk through the network
does, layer by layer: choose the grid of each new activation (range_choice; centred where that is
free, centre), fit and round the weights to the input that INT8 hands them (weight_rounding), take
the mean error off the bias (bias_correction). What is kept is what helps on samples that the walk
has not seen.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from artefacts.decibels import bounded_db
from artefacts.errors import DataError
from calibrators.ranges.ranges import Range, Ranges
from graphs.amend import add_bias
from graphs.comparable import before_scores, comparable_outputs, with_outputs
from graphs.identity import graph_hash
from graphs.view import GraphView
from quantization.improve.centring import centring_shifts, move_bounds
from quantization.improve.decisions import Decisions
from quantization.improve.equalize_choice import equalized
from quantization.improve.methods import NOTHING, Methods
from quantization.improve.range_choice import Grid
from quantization.improve.walk import Twins, live_bytes
from quantization.measure.execution import Arrays, Load, Run, load_int8, load_onnxruntime
from quantization.measure.fidelity import Fidelity, compare, run_all
from quantization.placement import Placement
from quantization.write.insert import QuantizedTensor, insert_qdq, unify_ranges

__all__ = ["VARIANTS", "Improved", "Trial", "improve", "improve_layers"]

logger = logging.getLogger(__name__)

VARIANTS = (Methods(), Methods(refitting=False))
"""What is tried beside plain calibration. Refitting helps deep and depthwise nets most, and can
fit the noise of a small one."""

_MOST_SAMPLES = 160  # more only lower chance errors that are small already
_HELD_OUT_SHARE = 0.25
_FEWEST_HELD_OUT = 2
_LIMIT_BYTES = 2 << 30  # activations of all samples that are alive at once, both copies


@dataclass(frozen=True, kw_only=True, eq=False)
class Improved:
    """A prepared graph and everything ``insert_qdq`` needs beside a placement.

    Attributes:
        model: the graph with scaled channels, moved activations and corrected biases; node and
            tensor names are as before, so the placement still fits.
        ranges: of that graph.
        weights: constant → its codes and scale; constants that are missing are rounded to
            nearest.
        methods: what was done.
        released: node → what its bias gains where the layer stays in float after all: its bias
            was corrected for the errors of its INT8 weight.
    """

    model: onnx.ModelProto
    ranges: Ranges
    weights: Mapping[str, QuantizedTensor]
    methods: Methods
    released: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def quantized(
        self,
        placement: Placement,
        *,
        weights: Literal["int8", "float"] = "int8",
    ) -> onnx.ModelProto:
        """The INT8 model.

        Args:
            placement: the one that was improved, or one that leaves more layers in float.
            weights: how weights are stored, see ``insert_qdq``.
        """
        fitting = self.leaving(placement)
        return insert_qdq(
            fitting.model,
            placement,
            fitting.ranges,
            weights=weights,
            weight_overrides=fitting.weights,
        )

    def leaving(self, placement: Placement) -> Improved:
        """The same for a placement that leaves more layers in float."""
        kept = {weight.node for weight in placement.weights}
        left = {name: shift for name, shift in self.released.items() if name not in kept}
        tensors = {weight.tensor for weight in placement.weights}
        weights = {name: value for name, value in self.weights.items() if name in tensors}
        if not left:
            return dataclasses.replace(self, weights=weights)
        model = add_bias(self.model, left)
        return dataclasses.replace(
            self,
            model=model,
            ranges=dataclasses.replace(self.ranges, graph_hash=graph_hash(model)),
            weights=weights,
            released={name: self.released[name] for name in self.released.keys() - left.keys()},
        )


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one set of methods gave on the samples held out.

    Attributes:
        methods: what was done.
        fidelity: over all of them; of scores before their softmax or sigmoid, which would make
            some samples count a thousand times as much as others.
        mean_db: mean of the SQNR of each, by which the best is chosen: the SQNR over all is that
            of the few samples with most noise, which are others the next time.
    """

    methods: Methods
    fidelity: Fidelity
    mean_db: float


def improve(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Ranges,
    samples: Sequence[Arrays],
    *,
    variants: Sequence[Methods] = VARIANTS,
    baseline: bool = True,
    seed: int = 0,
    load: Load = load_onnxruntime,
    load_quantized: Load = load_int8,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Improved, tuple[Trial, ...]]:
    """The variant with the best mean SQNR of held-out samples, plain calibration among them.

    Args:
        model: the prepared model; it is not changed.
        placement: of it.
        ranges: calibrated on the samples.
        samples: calibration feeds, one sample each or the model's fixed batch; a quarter is held
            out.
        variants: what to try.
        baseline: whether plain calibration is tried, too.
        seed: of the split and the sampled positions; equal seeds give equal results.
        load: runs float models.
        load_quantized: runs Q/DQ models, in float arithmetic.
        progress: called with steps done and their number.

    Returns:
        The best, and what was tried with its fidelity, plain calibration first if at all.

    Raises:
        DataError: fewer than 4 samples.
        ModelError: a model cannot be run.
    """
    fit, held = _divided(model, samples, load, seed)
    judged = comparable_outputs(GraphView(model))
    exact = run_all(load(before_scores(with_outputs(model, judged))), held)
    results = []
    if baseline:
        results.append(Improved(model=model, ranges=ranges, weights={}, methods=NOTHING))
    starts = {False: (model, ranges)}
    if any(methods.equalizing for methods in variants):
        starts[True] = equalized(model, placement, ranges, fit, load, seed=seed)
    for number, methods in enumerate(variants):
        step = _part(progress, number, len(variants))
        start, fitting = starts[methods.equalizing]
        walked = _walked(start, placement, fitting, fit, load, methods, seed, step)
        results.append(walked)
    trials = []
    for result in results:
        int8 = with_outputs(result.quantized(placement), judged)
        trial = _tried(result, load_quantized(before_scores(int8)), held, exact)
        trials.append(trial)
        names = " ".join(result.methods.names) or "calibration alone"
        logger.info("SQNR %.2f dB on %d samples: %s", trial.mean_db, len(held), names)
    best = max(range(len(trials)), key=lambda number: trials[number].mean_db)
    return results[best], tuple(trials)


def _tried(
    result: Improved, run: Run, held: Sequence[Arrays], exact: Sequence[Mapping[str, Any]]
) -> Trial:
    found = run_all(run, held)
    levels = [
        compare(lambda _, outputs=outputs: outputs, [feed], [wanted]).sqnr_db  # type: ignore[misc]
        for feed, outputs, wanted in zip(held, found, exact, strict=True)
    ]
    answers = iter(found)
    return Trial(
        methods=result.methods,
        fidelity=compare(lambda _: next(answers), held, exact),
        mean_db=float(np.mean([bounded_db(level) for level in levels])),
    )


def improve_layers(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Ranges,
    samples: Sequence[Arrays],
    load: Load = load_onnxruntime,
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
        samples: feeds, as in ``improve``, that the ranges were calibrated on.
        load: runs float models.
        methods: what to do.
        seed: of the choice of positions.
        progress: called with nodes done and their number.

    Raises:
        DataError: no samples.
        ModelError: a node cannot be run.
    """
    if methods.equalizing:
        model, ranges = equalized(model, placement, ranges, samples, load, seed=seed)
    return _walked(model, placement, ranges, samples, load, methods, seed, progress)


def _walked(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Ranges,
    samples: Sequence[Arrays],
    load: Load,
    methods: Methods,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> Improved:
    """All methods but the equalisation, which the model and ranges have behind them."""
    view = GraphView(model)
    unified = unify_ranges(ranges, placement)
    decisions = Decisions(view, placement, unified, methods, seed=seed)
    twins = Twins(view=view, load=load, samples=samples, correct=methods.biases)
    twins.walk(decisions.decide, progress)
    centres = {name: grid.centre for name, grid in decisions.grids.items() if grid.centre}
    shifts = dict(twins.shifts)
    moved = centring_shifts(view, decisions.centrable, centres, decisions.rounded)
    for name, shift in moved.items():
        shifts[name] = shifts.get(name, np.zeros(1)) + shift
    released = _released(
        decisions, twins, moved, centring_shifts(view, decisions.centrable, centres, {})
    )
    changed = add_bias(move_bounds(model, decisions.centrable, centres), shifts)
    new = ranges.replace({name: _range(grid) for name, grid in decisions.grids.items()})
    return Improved(
        model=changed,
        ranges=dataclasses.replace(new, graph_hash=graph_hash(changed)),
        weights=decisions.weights,
        methods=methods,
        released=released,
    )


def _released(
    decisions: Decisions,
    twins: Twins,
    moved: Mapping[str, NDArray[np.float64]],
    moved_float: Mapping[str, NDArray[np.float64]],
) -> dict[str, NDArray[np.float64]]:
    """Bias of a layer in float less its bias in INT8.

    Its own correction goes, and a centred input is made up for by the sums of the float weight.
    """
    found = {}
    for name in decisions.int8_nodes:
        if name in twins.shifts or name in moved:
            shift = moved_float.get(name, np.zeros(1)) - moved.get(name, np.zeros(1))
            found[name] = shift - twins.shifts.get(name, np.zeros(1))
    return found


def _divided(
    model: onnx.ModelProto, samples: Sequence[Arrays], load: Load, seed: int
) -> tuple[list[Arrays], list[Arrays]]:
    """Samples for the walk and samples held out, shuffled; fewer where memory would not do."""
    if len(samples) < 2 * _FEWEST_HELD_OUT:
        raise DataError(
            f"{len(samples)} samples were given, expected at least {2 * _FEWEST_HELD_OUT} (some "
            "are held out to judge by); give more calibration data or turn improvement off"
        )
    order = np.random.default_rng(seed).permutation(len(samples))
    fed = sum(array.nbytes for array in samples[0].values())
    each = 2 * live_bytes(GraphView(model), load, samples[0]) + fed
    most = min(_MOST_SAMPLES, max(_LIMIT_BYTES // each, 2 * _FEWEST_HELD_OUT))
    if most < min(len(samples), _MOST_SAMPLES):
        logger.info("%d of %d samples are used, %d MiB each", most, len(samples), each >> 20)
    taken = [samples[number] for number in order[:most]]
    held = max(int(len(taken) * _HELD_OUT_SHARE), _FEWEST_HELD_OUT)
    return taken[held:], taken[:held]


def _part(
    progress: Callable[[int, int], None] | None, number: int, parts: int
) -> Callable[[int, int], None] | None:
    """Progress of part ``number`` as progress of all parts."""
    if progress is None:
        return None
    whole = progress
    return lambda done, total: whole(number * total + done, parts * total)


def _range(grid: Grid) -> Range:
    why = f"moved by {-grid.centre:g} to the middle of its values" if grid.centre else ""
    return Range(amax=grid.amax, method="reader error", why=why)
