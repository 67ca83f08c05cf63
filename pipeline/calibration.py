"""Samples → statistics → ranges, as the flags ask for it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx

import calibrators
import quantization
from artefacts.errors import ArtefactError, InputError
from artefacts.files import sha256_file, write_atomic
from artefacts.words import counted
from calibrators.samples.checks import check_unnormalised, refuse_overlap
from calibrators.statistics.on_ray import observe_on_ray
from calibrators.tensorrt.cache import cache_from_ranges, write_cache
from pipeline.flags import Job
from pipeline.parts import learning_part
from pipeline.preprocessing import sample_classes
from pipeline.screen import Screen

__all__ = ["calibrate", "calibration_samples", "evaluation_samples", "held_out_samples"]

logger = logging.getLogger(__name__)


def calibrate(
    job: Job,
    prepared: onnx.ModelProto,
    placement: quantization.Placement,
    passport: dict[str, Any],
    screen: Screen,
) -> calibrators.Ranges | None:
    """One pass over the samples, then the range of each tensor by the chosen method.

    Returns:
        The ranges; None where ``--shard`` observed only a part.
    """
    samples = None if job.statistics else calibration_samples(job, prepared)
    origin = samples.path if samples is not None else str(job.statistics)
    screen.start(f"calibrate  {origin}, method {job.calibrator}")
    everything = quantization.place(prepared, profile="dla") if job.calib_cache else placement
    tensors = sorted({*placement.tensors, *everything.tensors})
    if samples is None:
        statistics = calibrators.Statistics.load(Path(origin))
    else:
        if samples.unused:
            screen.add(f"{samples.path}: {samples.unused} not used")
        if job.random_calibration is None:
            screen.warn(*check_unnormalised(samples))
        statistics = _observe(job, prepared, tensors, samples, screen)
    if job.shard is not None:
        joined = job.beside(".stats.npz")
        screen.add(
            f"wrote {_statistics_path(job)}; when all shards are there, join them with",
            f"  python -m calibrators merge {job.beside('.shard*.stats.npz')} -o {joined}",
            f"and go on with --statistics {joined}",
        )
        return None
    sources = [] if samples is None else [samples]
    if job.eval_data is not None and job.random_calibration is None:
        sources.append(evaluation_samples(job, prepared))
        refuse_overlap(statistics.samples, sources[-1])
    ranges = _ranges(job, statistics)
    if job.calib_cache is not None:
        _write_cache(job, everything, ranges, screen)
    ranges = quantization.unify_ranges(ranges, placement)
    ranges.save(job.beside(".ranges.json"))
    _say_what_was_found(job, statistics, ranges, screen)
    passport |= {
        "ranges_sha256": sha256_file(job.beside(".ranges.json")),
        "statistics_sha256": sha256_file(job.statistics or job.beside(".stats.npz")),
        "preprocess": ranges.preprocess or passport.get("preprocess"),
        "labels": passport.get("labels") or sample_classes(job, prepared, sources, screen),
        "calibrator": job.calibrator,
        "samples": len(statistics.samples),
        "calibration_samples": sorted(statistics.samples),
    }
    return ranges


def calibration_samples(job: Job, prepared: onnx.ModelProto) -> calibrators.Samples:
    """The samples to learn from; random ones only where asked for.

    Raises:
        InputError: there are none.
    """
    samples = _given_samples(job, prepared)
    return learning_part(samples)[0] if job.holds_out else samples


def held_out_samples(job: Job, prepared: onnx.ModelProto) -> calibrators.Samples:
    """The calibration data that is not learned from, where a promise has no other samples."""
    return learning_part(_given_samples(job, prepared))[1]


def _given_samples(job: Job, prepared: onnx.ModelProto) -> calibrators.Samples:
    inputs = calibrators.input_specs(prepared)
    if job.random_calibration is not None:
        return calibrators.random_samples(inputs, count=job.random_calibration, seed=0)
    if job.calib_data is None:
        raise InputError(
            "--precision int8 without --calib-data has nothing to take ranges from, expected an "
            "image folder, .npz, .npy or a Python file with load_data(); give one (or "
            "--random-calibration 8 to measure speed only)"
        )
    samples = calibrators.open_samples(
        job.calib_data, inputs=inputs, preprocess=_spec(job), limit=job.calib_num
    )
    return samples if job.shard is None else samples[job.shard[0] - 1 :: job.shard[1]]


def evaluation_samples(job: Job, prepared: onnx.ModelProto) -> calibrators.Samples:
    """The samples of ``--eval-data``, labelled unless the promise needs no labels.

    Raises:
        DataError: they cannot be read or have no labels.
    """
    assert job.eval_data is not None
    inputs = calibrators.input_specs(prepared)
    samples = calibrators.open_samples(job.eval_data, inputs=inputs, preprocess=_spec(job))
    if job.task is None and not job.label_free:
        calibrators.require_labels(samples)
    return samples


def _spec(job: Job) -> calibrators.Preprocess | None:
    """The spec that ``settle_preprocess`` put there."""
    assert not isinstance(job.preprocess, Path)
    return job.preprocess


def _statistics_path(job: Job) -> Path:
    shard = f".shard{job.shard[0]}of{job.shard[1]}" if job.shard else ""
    return job.beside(f"{shard}.stats.npz")


def _observe(
    job: Job,
    prepared: onnx.ModelProto,
    tensors: list[str],
    samples: calibrators.Samples,
    screen: Screen,
) -> calibrators.Statistics:
    """Statistics of the samples, going on from a checkpoint of the same run."""
    path = _statistics_path(job)

    def go(checkpoint: Path | None, part: Iterable[calibrators.Sample]) -> calibrators.Statistics:
        spec = samples.preprocess.to_dict() if samples.preprocess else None
        with screen.bar("samples") as progress:
            if job.workers == "ray":
                found = observe_on_ray(prepared, tensors, part, progress=progress, preprocess=spec)
                found.save(path)
                return found
            return calibrators.observe(
                prepared,
                tensors,
                part,
                batch_size=job.calib_batch,
                checkpoint=checkpoint,
                preprocess=spec,
                progress=progress,
            )

    try:
        return go(path, samples)
    except ArtefactError as err:
        if not path.is_file():
            raise
        # Statistics of an earlier run with other data: an output, which this run replaces.
        logger.info("%s", err)
        screen.add(f"{path} is of another run: observing afresh")
        path.unlink()
    return go(path, samples)


def _ranges(job: Job, statistics: calibrators.Statistics) -> calibrators.Ranges:
    """Ranges by the method; ``auto`` chooses each tensor's, halves of the samples as judges."""
    if job.calibrator == "auto":
        return calibrators.choose_per_tensor(statistics)
    return calibrators.compute_ranges(statistics, method=job.calibrator)


def _write_cache(
    job: Job, everything: quantization.Placement, ranges: calibrators.Ranges, screen: Screen
) -> None:
    """TensorRT's calibration cache: a line for every tensor, passed-through ones too."""
    assert job.calib_cache is not None
    full = quantization.spread_ranges(quantization.unify_ranges(ranges, everything), everything)
    cache = cache_from_ranges(full, version=job.cache_version, algorithm=_algorithm(job.calibrator))
    write_atomic(job.calib_cache, write_cache(cache))
    screen.add(
        f"wrote {job.calib_cache} for TensorRT {job.cache_version}: "
        f"{len(full.tensors)} tensors of {job.beside('.prepared.onnx')}"
    )


def _algorithm(calibrator: str) -> str:
    return "MinMaxCalibration" if calibrator == "minmax" else "EntropyCalibration2"


def _say_what_was_found(
    job: Job, statistics: calibrators.Statistics, ranges: calibrators.Ranges, screen: Screen
) -> None:
    samples = counted(len(statistics.samples), "sample")
    screen.add(f"{samples}, {counted(len(ranges.tensors), 'range')}")
    if job.calibrator != "auto":
        screen.add(str(calibrators.convergence(statistics, method=job.calibrator)))
    for report in calibrators.describe(statistics, ranges):
        if report.remark in ("dead", "constant"):
            screen.add(f"tensor {report.name} is {report.remark}: it gets a safe scale")
