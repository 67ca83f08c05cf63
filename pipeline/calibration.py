"""Samples → statistics → ranges, as the flags ask for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx

import calibrators
import quantization
from artefacts.errors import ArtefactError
from artefacts.files import write_atomic
from calibrators.samples.checks import check_unnormalised, refuse_overlap
from calibrators.statistics.on_ray import observe_on_ray
from calibrators.tensorrt.cache import cache_from_ranges, write_cache
from pipeline.job import Calibrate, Data, Paths
from pipeline.samples import calibration_samples, evaluation_samples
from pipeline.screen import Screen

__all__ = ["Calibrated", "calibrate", "statistics_path"]

logger = logging.getLogger(__name__)


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
    """

    model: onnx.ModelProto
    placement: quantization.Placement
    ranges: calibrators.Ranges
    method: str
    statistics: Path
    digests: tuple[str, ...]
    labels: tuple[str, ...] | None = None


def calibrate(
    paths: Paths,
    data: Data,
    asked: Calibrate,
    prepared: onnx.ModelProto,
    place: Callable[..., quantization.Placement],
    screen: Screen,
) -> Calibrated | None:
    """One pass over the samples, then the range of each tensor by the chosen method.

    Args:
        paths: where statistics and ranges are written.
        data: the samples.
        asked: the method.
        prepared: the float model.
        place: places it, with ``amax=`` again when the ranges are known.
        screen: told what was found.

    Returns:
        The network with its ranges; None where ``--shard`` observed only a part.
    """
    placement = place()
    samples = None if asked.statistics else calibration_samples(data, prepared)
    origin = samples.path if samples is not None else str(asked.statistics)
    screen.start(f"calibrate  {origin}, method {asked.method}")
    everything = quantization.place(prepared, profile="dla") if asked.cache else placement
    path = asked.statistics or statistics_path(paths, data)
    if samples is None:
        statistics = calibrators.Statistics.load(path)
    else:
        if data.random_calibration is None:
            screen.add(*(f"warning: {text}" for text in check_unnormalised(samples)))
        tensors = sorted({*placement.tensors, *everything.tensors})
        observed = _Observation(prepared, tensors, samples, path, data.batch, asked.workers)
        statistics = observed.run(screen)
    if data.shard is not None:
        screen.add(
            f"wrote {path}; when all shards are there, join them with",
            "  python -m calibrators merge *.stats.npz -o all.stats.npz",
            "and go on with --statistics all.stats.npz",
        )
        return None
    if data.eval_data is not None and data.random_calibration is None:
        refuse_overlap(statistics.samples, evaluation_samples(data, prepared))
    ranges = _ranges(asked.method, statistics)
    if asked.cache is not None:
        count = _write_cache(asked, asked.cache, everything, ranges)
        screen.add(
            f"wrote {asked.cache} for TensorRT {asked.cache_version}: "
            f"{count} tensors of {paths.beside('.prepared.onnx')}"
        )
    placement = place(amax={name: entry.amax for name, entry in ranges.tensors.items()})
    ranges = quantization.unify_ranges(ranges, placement)
    ranges.save(paths.beside(".ranges.json"))
    axes = calibrators.say_axes(calibrators.input_specs(prepared))
    screen.add(f"{len(statistics.samples)} samples, {axes}; {len(ranges.tensors)} ranges")
    _say_what_was_found(asked.method, statistics, ranges, screen)
    if placement.joined:
        screen.add(
            f"{len(placement.joined)} Concats join branches too far apart for one scale; each "
            "branch keeps its own"
        )
    return Calibrated(
        model=prepared,
        placement=placement,
        ranges=ranges,
        method=asked.method,
        statistics=path,
        digests=tuple(sorted(statistics.samples)),
        labels=None if samples is None else tuple(samples.classes) or None,
    )


def statistics_path(paths: Paths, data: Data) -> Path:
    """Where a run over these samples keeps what it counted."""
    shard = f".shard{data.shard[0]}of{data.shard[1]}" if data.shard else ""
    return paths.beside(f"{shard}.stats.npz")


@dataclass(frozen=True)
class _Observation:
    """One pass over the samples, going on from a checkpoint of the same run."""

    prepared: onnx.ModelProto
    tensors: list[str]
    samples: calibrators.Samples
    path: Path
    batch: int
    workers: str | None

    def run(self, screen: Screen) -> calibrators.Statistics:
        try:
            return self._go(self.samples, screen)
        except ArtefactError as err:
            if not self.path.is_file():
                raise
            # Statistics of an earlier run with other data: an output, which this run replaces.
            logger.info("%s", err)
            screen.add(f"{self.path} is of another run: observing afresh")
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


def _ranges(method: str, statistics: calibrators.Statistics) -> calibrators.Ranges:
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
    method: str, statistics: calibrators.Statistics, ranges: calibrators.Ranges, screen: Screen
) -> None:
    if method != "auto":
        screen.add(str(calibrators.convergence(statistics, method=method)))
    for report in calibrators.describe(statistics, ranges):
        if report.remark in ("dead", "constant"):
            screen.add(f"tensor {report.name} is {report.remark}: it gets a safe scale")
