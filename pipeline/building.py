"""Prepared or Q/DQ model → engine file, as the flags ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

import calibrators
import engines
import quantization
from artefacts.errors import InputError
from calibrators.tensorrt.calibrator import CALIBRATORS, calibrator
from pipeline.calibration import calibration_samples
from pipeline.flags import Job
from pipeline.half_part import in_half
from pipeline.screen import Screen

__all__ = ["build_file", "build_options", "halve"]


def halve(job: Job, target: str, source: Path, passport: dict[str, Any], screen: Screen) -> Path:
    """The floating-point part in float16, where the target takes types from the graph."""
    part = "fp16" if job.precision == "fp16" else job.float_part
    if part is None:
        part = "fp32" if target == "cpu" or job.precision == "fp32" else "fp16"
    if part == "fp32" or target == "cpu" or job.implicit:
        return source
    if not engines.takes_types_from_graph(target):
        return source  # TensorRT 8 reads scales as float32 and casts by itself
    amax = {}
    if "statistics_sha256" in passport:
        statistics = calibrators.Statistics.load(job.statistics or job.beside(".stats.npz"))
        amax = {name: entry.amax for name, entry in statistics.tensors.items()}
    half = in_half(job, quantization.load_model(source), amax, screen.add)
    if half is None:
        return source
    path = job.beside(".fp16.onnx")
    quantization.save_model(half.model, path)
    screen.add(f"{half.halved} operators in FP16, {len(half.kept)} stay in FP32: {path}")
    passport["float32_operators"] = [vars(entry) | {} for entry in half.kept]
    return path


def build_file(
    job: Job,
    target: str,
    prepared: onnx.ModelProto,
    source: Path,
    passport: dict[str, Any],
    screen: Screen,
) -> engines.Manifest:
    """Build the engine and its manifest."""
    screen.start(f"build      {job.engine}, target {target}")
    options = build_options(job, target, prepared)
    feeds = _trial_feeds(job, target, prepared)
    with ExitStack() as stack:
        if job.implicit and job.calib is None:
            options = _with_calibrator(job, prepared, options, stack, screen)
        manifest = engines.build(source, job.engine, options, passport, feeds)
    if manifest.coverage is not None and job.precision == "int8":
        coverage = manifest.coverage
        screen.add(
            f"{len(coverage.int8_layers)} of {len(coverage.nodes)} layers run INT8, "
            f"{coverage.int8_mac_share:.1%} of multiply-accumulates ({coverage.source})",
        )
    return manifest


def settle_cpu_isa(job: Job, target: str) -> str | None:
    """The INT8 arithmetic to quantize for; None where the target is no CPU.

    Raises:
        InputError: VNNI is asked of a CPU without it, or of another target.
    """
    if target != "cpu":
        if job.cpu_isa != "auto":
            raise InputError(
                f"--cpu-isa {job.cpu_isa} with --target {target}, expected it only with cpu; drop "
                "it or choose --target cpu"
            )
        return None
    if job.precision != "int8":
        return None
    if job.stop_after is not None and job.cpu_isa != "auto":
        return job.cpu_isa
    if job.stop_after is not None and not engines.has_module("openvino"):
        return "portable"  # right wherever it is built
    if job.cpu_isa == "vnni" and engines.cpu_isa() != "vnni":
        raise InputError(
            "--cpu-isa vnni on a CPU without VNNI, whose 16-bit sums would saturate, expected auto "
            "or portable; drop it, or write the ONNX for another machine with --stop-after onnx"
        )
    return engines.resolve_cpu_isa(job.cpu_isa)


def build_options(job: Job, target: str, prepared: onnx.ModelProto) -> engines.BuildOptions:
    """What the builder is told."""
    return engines.BuildOptions(
        target=target,  # type: ignore[arg-type]
        precision=job.precision,
        profiles=_profiles(job, target, prepared),
        workspace_mib=job.workspace,
        memory_pools_mib=job.mem_pool_size,
        timing_cache=job.timing_cache,
        optimization_level=job.optimization_level,
        tf32=not job.no_tf32,
        compute_capabilities=job.compute_capability,
        float_part=job.float_part if target == "tensorrt" else None,
        dla_core=job.dla_core,
        allow_gpu_fallback=job.allow_gpu_fallback,
        hardware_compatibility=job.hardware_compatibility,
        version_compatible=job.version_compatible,
        tactic_sources=job.tactic_sources,
        preview_features=job.preview,
        threads=job.threads,
        require_int8=job.require_int8,
        calibration_cache=job.calib,
    )


def _trial_feeds(job: Job, target: str, prepared: onnx.ModelProto) -> list[Any]:
    """A sample alone and a batch of them, to hold a cpu engine against itself while it is built."""
    if target != "cpu" or job.calib_data is None:
        return []
    inputs = calibrators.input_specs(prepared)
    samples = calibration_samples(job, prepared)
    batches = [
        next(iter(calibrators.batches(samples[:size], size, inputs=inputs)), None)
        for size in (1, job.calib_batch)
    ]
    return [batch.inputs for batch in batches if batch is not None]


def _with_calibrator(
    job: Job,
    prepared: onnx.ModelProto,
    options: engines.BuildOptions,
    stack: ExitStack,
    screen: Screen,
) -> engines.BuildOptions:
    """TensorRT's own calibrator, fed with the same batches; up to TensorRT 10.16.

    Raises:
        InputError: the method is none of TensorRT's.
        UnsupportedError: this TensorRT has no calibrators.
    """
    if job.calibrator not in CALIBRATORS:
        raise InputError(
            f"--implicit with --calibrator {job.calibrator}, expected one of TensorRT's own, "
            f"{', '.join(CALIBRATORS)}; or write --calib-cache and build with --calib"
        )
    samples = calibration_samples(job, prepared)
    inputs = calibrators.input_specs(prepared)
    progress = stack.enter_context(screen.bar("batches"))
    own, feeder = calibrator(
        job.calibrator,
        calibrators.batches(samples, job.calib_batch, inputs=inputs),
        progress=lambda done: progress(done, None),
    )
    stack.enter_context(feeder)
    return replace(options, calibrator=own, calibration_shapes=feeder.shapes)


def _profiles(job: Job, target: str, prepared: onnx.ModelProto) -> tuple[engines.Profile, ...]:
    """The shape ranges of the flags, else those of the data where TensorRT needs some.

    A dynamic batch becomes 1 to four times ``--calib-batch``; other dynamic dimensions take the
    smallest and largest size among the calibration samples. A DLA has one shape: ``--calib-batch``
    samples of the largest size.
    """
    given = [job.min_shapes, job.opt_shapes, job.max_shapes]
    if any(given):
        columns = [s or job.opt_shapes or job.max_shapes or job.min_shapes for s in given]
        return tuple(
            engines.Profile(min=lowest, opt=usual, max=highest)
            for lowest, usual, highest in zip(*columns, strict=True)
        )
    inputs = calibrators.input_specs(prepared)
    dynamic = any(not isinstance(size, int) for spec in inputs for size in spec.shape)
    if target == "cpu" or not dynamic or job.calib_data is None:
        return ()
    low, high = calibrators.shape_limits(calibration_samples(job, prepared))
    batch = job.calib_batch if calibrators.has_batch_axis(inputs) else 1

    def scaled(shapes: Mapping[str, tuple[int, ...]], factor: int) -> dict[str, tuple[int, ...]]:
        free = {
            spec.name: spec.axis
            for spec in calibrators.resolved(inputs)
            if spec.axis is not None and not isinstance(spec.shape[spec.axis], int)
        }
        return {
            name: tuple(
                size * factor if at == free.get(name) else size for at, size in enumerate(shape)
            )
            for name, shape in shapes.items()
        }

    usual = scaled(high, batch)
    if job.dla_core is not None:
        return (engines.Profile(min=usual, opt=usual, max=usual),)
    return (engines.Profile(min=low, opt=usual, max=scaled(high, 4 * batch)),)
