"""Samples → statistics → ranges, as the flags ask for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx

import calibrators
import engines
import quantization
from artefacts.errors import ArtefactError
from artefacts.files import write_atomic
from artefacts.words import counted
from calibrators.samples.checks import check_unnormalised, refuse_overlap
from calibrators.statistics.on_ray import observe_on_ray
from calibrators.tensorrt.cache import cache_from_ranges, write_cache
from pipeline.input_summaries import input_summaries
from pipeline.job import Calibrate, Data, Paths
from pipeline.preprocessing import sample_classes
from pipeline.samples import calibration_samples, evaluation_samples
from pipeline.screen import Screen

__all__ = ["Calibrated", "Observation", "calibrate", "ranges_by", "statistics_path"]

logger = logging.getLogger(__name__)

# Remark of a tensor that had one value only → what is done about it.
DEGENERATE = {
    "dead": "was always 0 on the samples; a fallback scale is used",
    "constant": "was always the same value on the samples; that value is its range",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibrated:
    """A network with a range for each tensor that INT8 needs one of.

    Attributes:
        model: the prepared float model.
        placement: of it, with everything in INT8 that may be.
        ranges: of its tensors.
        method: that they were taken by.
        statistics: the file that they were taken from.
        digests: of the samples, sorted.
        labels: class names of the samples, where they have them.
        inputs: what the samples look like; None where only their statistics were given.
    """

    model: onnx.ModelProto
    placement: quantization.Placement
    ranges: calibrators.Ranges
    method: str
    statistics: Path
    digests: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    inputs: tuple[engines.InputSummary, ...] | None = None


def calibrate(
    paths: Paths,
    data: Data,
    asked: Calibrate,
    prepared: onnx.ModelProto,
    place: Callable[..., quantization.Placement],
    screen: Screen,
) -> Calibrated | None:
    """One pass over the samples, then the range of each tensor by the chosen method.

    ``place`` is called again, with ``amax=``, when the ranges are known.

    Returns:
        The network with its ranges; None where ``--shard`` observed only a part.
    """
    placement = place()
    made_up = data.random_calibration is not None
    samples = None if asked.statistics else calibration_samples(data, prepared)
    origin = samples.path if samples is not None else str(asked.statistics)
    screen.start(f"calibrate  {origin}, method {asked.method}")
    everything = quantization.place(prepared, profile="dla") if asked.cache else placement
    path = asked.statistics or statistics_path(paths, data)
    tensors = sorted({*placement.tensors, *everything.tensors})
    if samples is None:
        statistics = calibrators.Statistics.load(path)
    else:
        observed = Observation(prepared, tensors, samples, path, data.batch, asked.workers)
        _say_what_is_odd(data, samples, screen)
        statistics = observed.run(screen)
    # Ranges of a part would be wrong: they follow from all shards together.
    if data.shard is not None:
        _say_what_comes_next(paths, path, screen)
        return None
    sources = [] if samples is None else [samples]
    if data.eval_data is not None and data.random_calibration is None:
        sources.append(evaluation_samples(data, prepared))
        refuse_overlap(statistics.samples, sources[-1])
    ranges = ranges_by(asked.method, statistics)
    if asked.cache is not None:
        count = _write_cache(asked, asked.cache, everything, ranges)
        written = f"wrote {asked.cache} for TensorRT {asked.cache_version}"
        screen.add(f"{written}: {count} tensors of {paths.beside('.prepared.onnx')}")
    # Again, now that ranges are known: a Concat of branches far apart keeps a scale for each.
    placement = place(amax=ranges.amax_by_tensor)
    ranges = quantization.unify_ranges(ranges, placement)
    ranges.save(paths.beside(".ranges.json"))
    found = Calibrated(
        model=prepared,
        placement=placement,
        ranges=ranges,
        method=asked.method,
        statistics=path,
        digests=tuple(sorted(statistics.samples)),
        labels=sample_classes(data, prepared, sources, screen),
        inputs=None if samples is None or made_up else input_summaries(samples),
    )
    _say_what_was_found(found, statistics, screen)
    return found


def _say_what_is_odd(data: Data, samples: calibrators.Samples, screen: Screen) -> None:
    if samples.unused:
        screen.add(f"{samples.path}: {samples.unused} not used")
    if data.random_calibration is None:
        screen.warn(*check_unnormalised(samples))


def _say_what_comes_next(paths: Paths, shard: Path, screen: Screen) -> None:
    joined = paths.beside(".stats.npz")
    screen.add(
        f"wrote {shard}; when all shards are there, join them with",
        f"  python -m calibrators merge {paths.beside('.shard*.stats.npz')} -o {joined}",
        f"and go on with --statistics {joined}",
    )


def statistics_path(paths: Paths, data: Data) -> Path:
    """Where a run over these samples keeps what it counted."""
    shard = f".shard{data.shard[0]}of{data.shard[1]}" if data.shard else ""
    return paths.beside(f"{shard}.stats.npz")


@dataclass(frozen=True)
class Observation:
    """One pass over the samples, going on from a checkpoint of the same run.

    Attributes:
        prepared: the model.
        tensors: of it, to keep statistics of.
        samples: to run it over.
        path: the checkpoint, and where the statistics are kept.
        batch: samples that are counted together.
        workers: who observes.
    """

    prepared: onnx.ModelProto
    tensors: list[str]
    samples: calibrators.Samples
    path: Path
    batch: int
    workers: str | None = None

    def run(self, screen: Screen) -> calibrators.Statistics:
        """The statistics; those of other data in their place are replaced."""
        try:
            return self._go(self.samples, screen)
        except ArtefactError as err:
            if not self.path.is_file():
                raise
            # Statistics of an earlier run with other data: an output, which this run replaces.
            logger.info("%s", err)
            screen.add(f"{self.path} belongs to other data or another model; recomputing")
            self.path.unlink()
        return self._go(self.samples, screen)

    def _go(self, part: Iterable[calibrators.Sample], screen: Screen) -> calibrators.Statistics:
        spec = self.samples.preprocess.to_dict() if self.samples.preprocess else None
        with screen.bar("samples") as progress:
            if self.workers == "ray":
                found = observe_on_ray(
                    self.prepared, self.tensors, part, progress=progress, preprocess=spec
                )
                found.save(self.path)
                return found
            return calibrators.observe(
                self.prepared,
                self.tensors,
                part,
                batch_size=self.batch,
                checkpoint=self.path,
                preprocess=spec,
                progress=progress,
            )


def ranges_by(method: str, statistics: calibrators.Statistics) -> calibrators.Ranges:
    """Ranges by the method; ``auto`` chooses each tensor's, halves of the samples as judges."""
    if method == "auto":
        return calibrators.choose_per_tensor(statistics)
    return calibrators.compute_ranges(statistics, method=method)


def _write_cache(
    asked: Calibrate,
    path: Path,
    everything: quantization.Placement,
    ranges: calibrators.Ranges,
) -> int:
    """TensorRT's calibration cache: a line for every tensor, passed-through ones too; how many."""
    full = quantization.spread_ranges(quantization.unify_ranges(ranges, everything), everything)
    algorithm = "MinMaxCalibration" if asked.method == "minmax" else "EntropyCalibration2"
    cache = cache_from_ranges(full, version=asked.cache_version, algorithm=algorithm)
    write_atomic(path, write_cache(cache))
    return len(full.tensors)


def _say_what_was_found(
    found: Calibrated, statistics: calibrators.Statistics, screen: Screen
) -> None:
    axes = calibrators.say_axes(calibrators.input_specs(found.model))
    samples = counted(len(statistics.samples), "sample")
    screen.add(f"{samples}, {axes}; {counted(len(found.ranges.tensors), 'range')}")
    if found.method != "auto":
        screen.add(str(calibrators.convergence(statistics, method=found.method)))
    for report in calibrators.describe(statistics, found.ranges):
        if report.remark in DEGENERATE:
            screen.add(f"tensor {report.name} {DEGENERATE[report.remark]}")
    if found.placement.joined:
        screen.add(
            f"{counted(len(found.placement.joined), 'Concat')} of branches too far apart for one "
            "scale: each branch keeps its own"
        )
