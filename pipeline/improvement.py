"""Better INT8 of the same layers, kept only where it helps on samples it has not seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import calibrators
import quantization
from artefacts.words import counted
from graphs.macs import sample_macs
from graphs.view import GraphView
from pipeline.calibration import Calibrated
from pipeline.job import Data, Job, Quantize
from pipeline.samples import calibration_samples
from pipeline.screen import Screen
from quantization.improve.checkpoint import Checkpoint
from quantization.improve.improve import improve_layers
from quantization.improve.improved import Improved
from quantization.improve.methods import EFFORTS, UNFITTED, Methods
from quantization.improve.walk.float_and_int8 import can_walk
from quantization.improve.weights.wide import BLOCK_INPUTS, WIDEST_WHOLE, wide_layers
from quantization.measure.execution import Arrays

__all__ = ["Fitted", "Fitting", "Improver"]

FEWEST_FEEDS = 4  # some to learn from, some to judge by

BetweenSteps = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """An improved network, and how many samples it was fitted to."""

    network: Improved
    samples: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Improver:
    """Improves a calibrated network on the first of the samples that it was calibrated with.

    Attributes:
        data: the samples.
        asked: how many of them to learn from, and how much to try.
        screen: where progress is printed.
        checkpoint: file of what was decided; the same improvement goes on from it.
    """

    data: Data
    asked: Quantize
    screen: Screen
    checkpoint: Path

    @cached_property
    def _walks(self) -> Checkpoint:
        """Read once, though the network may be fitted again."""
        return Checkpoint(self.checkpoint)

    @classmethod
    def of(cls, job: Job, screen: Screen) -> Improver:
        """As a job asks for it."""
        return cls(
            data=job.data,
            asked=job.quantize,
            screen=screen,
            checkpoint=job.paths.beside(".walks.npz"),
        )

    def improve(
        self,
        given: Calibrated,
        methods: Methods | None = None,
        between_steps: BetweenSteps | None = None,
    ) -> Fitted | None:
        """Choose ranges by their readers' error, round weights to the samples, correct biases.

        Args:
            given: the network.
            methods: what to do, whatever it brings; None chooses the best, or calibration alone.
            between_steps: called with steps done and their number; what it raises ends the work.

        Returns:
            The model and everything ``insert_qdq`` needs; None where the flags or the data leave
            nothing to learn from.
        """
        if self.asked.improvement_samples == 0 or not self.data.learns:
            return None
        if not can_walk(GraphView(given.model)):
            self.screen.add("improvement skipped: the model uses ONNX sequences")
            return None
        feeds, batch = self.feeds(given), _batch(given)
        what = "samples" if batch == 1 else f"batches of {batch} samples"
        if len(feeds) < FEWEST_FEEDS:
            self.screen.add(
                f"improvement skipped: {len(feeds)} {what}, it takes {FEWEST_FEEDS} or more"
            )
            return None
        self.screen.add(f"improving ranges, rounding and biases with {len(feeds)} {what}")
        if wide := wide_layers(GraphView(given.model), given.placement):
            self.screen.add(
                f"{counted(len(wide), 'layer')} of more than {WIDEST_WHOLE:,} inputs fitted in "
                f"blocks of {BLOCK_INPUTS}: {', '.join(wide[:3])}{', …' if wide[3:] else ''}"
            )
        variants = self._variants(given, methods)
        with self.screen.bar("steps") as show:

            def progress(done: int, total: int) -> None:
                show(done, total)
                if between_steps is not None:
                    between_steps(done, total)

            found, trials = quantization.improve(
                given.model,
                given.placement,
                given.ranges,
                feeds,
                variants=variants,
                progress=progress,
                checkpoint=self._walks if methods is None else None,
            )
        # The mean over samples: the SQNR over all is that of the few samples with most noise.
        best = max(trials, key=lambda trial: trial.mean_db)
        before = f"{trials[0].mean_db:.1f} → " if methods is None else ""
        self.screen.add(
            f"INT8 graph: SQNR, mean over held-out samples, {before}{best.mean_db:.1f} dB: "
            f"{', '.join(best.methods.names) or 'nothing helped'}"
        )
        return Fitted(network=found, samples=len(feeds) * batch)

    def _variants(self, given: Calibrated, methods: Methods | None) -> tuple[Methods, ...]:
        if methods is not None:
            return (methods,)
        return EFFORTS[self.asked.effort].variants(self._macs(given))

    def unfitted(self, given: Calibrated, between_steps: BetweenSteps) -> Improved:
        """The network with nothing in it that makes up for errors, to rank layers in."""
        return improve_layers(
            given.model,
            given.placement,
            given.ranges,
            self.feeds(given),
            methods=UNFITTED,
            progress=between_steps,
        )

    def measure_again(
        self, given: Calibrated, left: quantization.Placement, found: Improved
    ) -> Improved:
        """With ranges of the improved graph for what is float in it, and may yet return to INT8.

        Tensors that were not quantized may have been scaled and moved with others.

        Args:
            given: the network, with everything in INT8 that may be.
            left: the placement that was improved for.
            found: the improved network.
        """
        missing = sorted({*given.placement.tensors} - {*left.tensors})
        if not missing:
            return found
        statistics = calibrators.observe(found.model, missing, self._learned(given))
        ranges = calibrators.compute_ranges(statistics, method=given.method)
        new = found.ranges.replace({name: ranges[name] for name in missing})
        return dataclasses.replace(found, ranges=new)

    def feeds(self, given: Calibrated) -> list[Arrays]:
        """What the model takes at once, of what is learned from: a sample or its batch."""
        inputs = calibrators.input_specs(given.model)
        batches = calibrators.batches(self._learned(given), 1, inputs=inputs)
        return [batch.inputs for batch in batches]

    def _learned(self, given: Calibrated) -> list[calibrators.Sample]:
        """The first of the calibration samples; enough for a few batches of a fixed size."""
        # A model of a fixed batch takes whole batches: 96 samples may be fewer than four of them.
        count = max(self.count(given), FEWEST_FEEDS * _batch(given))
        return list(islice(calibration_samples(self.data, given.model), count))

    def count(self, given: Calibrated) -> int:
        """How many samples are asked for; there may be fewer."""
        # A number needs no sample to be read.
        sized = self.asked.improvement_samples is None
        return self.asked.samples_for(self._macs(given) if sized else 0)

    def _macs(self, given: Calibrated) -> int:
        """Multiply-accumulates of a sample, free axes as long as those of the first."""
        inputs = calibrators.input_specs(given.model)
        first = islice(calibration_samples(self.data, given.model), 1)
        batch = next(iter(calibrators.batches(first, 1, inputs=inputs)))
        return sample_macs(given.model, batch.inputs) // _batch(given)


def _batch(given: Calibrated) -> int:
    """Samples that the model takes at once."""
    return calibrators.fixed_batch(calibrators.input_specs(given.model)) or 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitting:
    """Fits a network for the candidates of a search, as it was fitted at first.

    Attributes:
        improver: that fitted it.
        given: the network, calibrated by the method that was chosen.
        methods: of the improvement.
    """

    improver: Improver
    given: Calibrated
    methods: Methods

    def refit(self, left: quantization.Placement, between_steps: BetweenSteps) -> Improved:
        """The network fitted for a mixed."""
        self.improver.screen.add("improving again, for this mixed-precision candidate")
        mixed = dataclasses.replace(self.given, placement=left)
        found = self.improver.improve(mixed, self.methods, between_steps)
        # The first fit was one, so flags and samples leave something to fit to.
        assert found is not None
        return self.improver.measure_again(self.given, left, found.network)

    def unfitted(self, between_steps: BetweenSteps) -> Improved:
        """The network with nothing in it that makes up for errors, to rank layers in."""
        return self.improver.unfitted(self.given, between_steps)
