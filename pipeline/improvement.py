"""Better INT8 with no layer given up, kept only where it helps on samples it has not seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import onnx

import calibrators
import quantization
from artefacts.files import sha256_file
from graphs.identity import graph_hash
from graphs.view import GraphView
from pipeline.calibration import calibration_samples
from pipeline.flags import Job
from pipeline.screen import Screen
from quantization.improve.improve import VARIANTS, Improved, improve_layers
from quantization.improve.improve import improve as improve_model
from quantization.improve.methods import UNFITTED, Methods
from quantization.improve.walk import can_walk
from quantization.measure.execution import Arrays

__all__ = ["Fitting", "improve", "measure_again", "record"]

FEWEST_FEEDS = 4  # some to learn from, some to judge by


def improve(
    job: Job,
    prepared: onnx.ModelProto,
    placement: quantization.Placement,
    ranges: calibrators.Ranges,
    passport: dict[str, Any],
    screen: Screen,
    methods: Methods | None = None,
    between_steps: Callable[[int, int], None] | None = None,
) -> Improved | None:
    """Choose ranges by their readers' error, round weights to the samples, correct biases.

    Args:
        job: the flags.
        prepared: the float model.
        placement: of it.
        ranges: calibrated.
        passport: told what was done.
        screen: likewise.
        methods: what to do, whatever it brings; None chooses, calibration alone being a choice.
        between_steps: called with steps done and their number; what it raises ends the work.

    Returns:
        The model and everything ``insert_qdq`` needs; None where the flags or the data leave
        nothing to learn from.
    """
    if not job.improve or (job.calib_data is None and job.random_calibration is None):
        return None
    if not can_walk(GraphView(prepared)):
        screen.add("ranges as calibrated: sequences of tensors are left alone")
        return None
    feeds = _learning_feeds(job, prepared)
    batch = _batch(prepared)
    what = "samples" if batch == 1 else f"batches of {batch} samples"
    if len(feeds) < FEWEST_FEEDS:
        screen.add(f"ranges as calibrated: improving them takes {FEWEST_FEEDS} {what} or more")
        return None
    screen.add(f"improving ranges, rounding and biases with {len(feeds)} {what}")
    with screen.bar("steps") as show:

        def progress(done: int, total: int) -> None:
            show(done, total)
            if between_steps is not None:
                between_steps(done, total)

        found, trials = improve_model(
            prepared,
            placement,
            ranges,
            feeds,
            variants=VARIANTS if methods is None else (methods,),
            baseline=methods is None,
            progress=progress,
        )
    best = max(trials, key=lambda trial: trial.mean_db)
    before = f"{trials[0].mean_db:.1f} → " if methods is None else ""
    screen.add(
        f"mean SQNR on samples held out {before}{best.mean_db:.1f} dB: "
        f"{', '.join(best.methods.names) or 'nothing helped'}"
    )
    record(job, found, passport)
    passport["improvement_samples"] = len(feeds) * batch
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitting:
    """Fits a network for the mixtures of a search, as it was fitted at first.

    Attributes:
        job: the flags, with the calibration method that was chosen.
        prepared: the float model.
        placement: with everything in INT8 that may be.
        ranges: calibrated by that method.
        methods: of the improvement.
        screen: told of every fit.
    """

    job: Job
    prepared: onnx.ModelProto
    placement: quantization.Placement
    ranges: calibrators.Ranges
    methods: Methods
    screen: Screen

    def refit(
        self, left: quantization.Placement, between_steps: Callable[[int, int], None]
    ) -> Improved:
        """The network fitted for a mixture."""
        self.screen.add("improving again, for this mixture")
        found = improve(
            self.job, self.prepared, left, self.ranges, {}, self.screen, self.methods, between_steps
        )
        assert found is not None
        return measure_again(self.job, self.prepared, self.placement, left, found)

    def unfitted(self, between_steps: Callable[[int, int], None]) -> Improved:
        """The network with nothing in it that makes up for errors, to rank layers in."""
        return improve_layers(
            self.prepared,
            self.placement,
            self.ranges,
            _learning_feeds(self.job, self.prepared),
            methods=UNFITTED,
            progress=between_steps,
        )


def _learning_feeds(job: Job, prepared: onnx.ModelProto) -> list[Arrays]:
    """What the model takes at once, of what the improvement learns from: a sample or its batch."""
    inputs = calibrators.input_specs(prepared)
    batches = calibrators.batches(_learning_samples(job, prepared), 1, inputs=inputs)
    return [batch.inputs for batch in batches]


def _batch(prepared: onnx.ModelProto) -> int:
    """Samples that the model takes at once."""
    return calibrators.fixed_batch(calibrators.input_specs(prepared)) or 1


def _learning_samples(job: Job, prepared: onnx.ModelProto) -> list[calibrators.Sample]:
    """The first of the calibration samples; enough of them for a few batches of a fixed size."""
    count = max(job.improve, FEWEST_FEEDS * _batch(prepared))
    return list(islice(calibration_samples(job, prepared), count))


def measure_again(
    job: Job,
    prepared: onnx.ModelProto,
    placement: quantization.Placement,
    left: quantization.Placement,
    found: Improved,
) -> Improved:
    """With ranges of the improved graph for what is float in it, and may yet return to INT8.

    Tensors that were not quantized may have been scaled and moved with others.

    Args:
        job: the flags.
        prepared: the float model.
        placement: with everything in INT8 that may be.
        left: the one that was improved for.
        found: the improved network.
    """
    missing = sorted({*placement.tensors} - {*left.tensors})
    if not missing:
        return found
    statistics = calibrators.observe(found.model, missing, _learning_samples(job, prepared))
    ranges = calibrators.compute_ranges(statistics, method=job.calibrator)
    new = found.ranges.replace({name: ranges[name] for name in missing})
    return dataclasses.replace(found, ranges=new)


def record(job: Job, found: Improved, passport: dict[str, Any]) -> None:
    """Write the network that is quantized, and its ranges, beside the engine."""
    quantization.save_model(found.model, job.beside(".improved.onnx"))
    found.ranges.save(job.beside(".ranges.json"))
    passport["improved_graph_hash"] = graph_hash(found.model)
    passport["ranges_sha256"] = sha256_file(job.beside(".ranges.json"))
