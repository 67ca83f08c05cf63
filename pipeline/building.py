"""Prepared or Q/DQ model → engine file, as the flags ask for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

import calibrators
import engines
import quantization
from artefacts.errors import InputError
from calibrators.tensorrt.calibrator import CALIBRATORS, calibrator
from pipeline.half_part import in_half
from pipeline.job import Build, Data, Paths
from pipeline.samples import Arrays, calibration_samples, trial_requests
from pipeline.screen import Screen

__all__ = [
    "BuildSource",
    "build_file",
    "build_options",
    "calibrating",
    "convert_to_float16",
    "largest_batch",
    "refuse_calibrator",
    "settle_cpu_isa",
    "trial_feeds",
    "usual_shapes",
]


@dataclass(frozen=True, kw_only=True)
class BuildSource:
    """The model to build from, and what stayed in float32; None where nothing was converted."""

    source: Path
    float32_operators: tuple[engines.FloatOperator, ...] | None = None


def convert_to_float16(
    paths: Paths,
    data: Data,
    build: Build,
    target: str,
    source: Path,
    statistics: Path | None,
    screen: Screen,
) -> BuildSource:
    """The floating-point part in float16, where the target takes types from the graph.

    Args:
        paths: where the converted model is written.
        data: the samples that it is tried on.
        build: the precision asked for.
        target: that it is for.
        source: the model.
        statistics: of its tensors, where they were calibrated: what overflows stays.
        screen: where it is printed.
    """
    part = "fp16" if build.precision == "fp16" else build.float_part
    if part is None:
        part = "fp32" if build.precision == "fp32" else "fp16"
    if part == "fp32" or build.implicit:
        return BuildSource(source=source)
    if not engines.runtime_of(target).takes_types():
        return BuildSource(source=source)  # TensorRT 8 reads scales as float32 and casts by itself
    amax = {}
    if statistics is not None:
        loaded = calibrators.Statistics.load(statistics)
        amax = {name: entry.amax for name, entry in loaded.tensors.items()}
    insists = "fp16" in (build.precision, build.float_part)
    half = in_half(data, quantization.load_model(source), amax, screen.add, insists=insists)
    if half is None:
        return BuildSource(source=source)
    path = paths.beside(".fp16.onnx")
    quantization.save_model(half.model, path)
    screen.add(f"{half.halved} operators in FP16, {len(half.kept)} stay in FP32: {path}")
    kept = tuple(engines.FloatOperator(**vars(entry)) for entry in half.kept)
    return BuildSource(source=path, float32_operators=kept)


def build_file(
    source: Path,
    engine: Path,
    options: engines.BuildOptions,
    passport: engines.Passport,
    feeds: list[Arrays],
    screen: Screen,
) -> engines.Manifest:
    """Build the engine and its manifest."""
    manifest = engines.build(source, engine, options, passport, feeds, bar=screen.bars)
    if manifest.coverage is not None and options.precision == "int8":
        coverage = manifest.coverage
        screen.add(
            f"{len(coverage.int8_layers)} of {len(coverage.nodes)} layers run INT8, "
            f"{coverage.int8_mac_share:.1%} of multiply-accumulates ({coverage.source})",
        )
    return manifest


def settle_cpu_isa(asked: str, target: str, *, quantizes: bool, builds: bool) -> str | None:
    """The INT8 arithmetic to quantize for; None where the target has no choice.

    Args:
        asked: ``auto`` or a name.
        target: that is built for.
        quantizes: whether anything becomes INT8.
        builds: whether the engine is built here.

    Raises:
        InputError: VNNI is asked of a CPU without it, or of another target.
    """
    runtime = engines.runtime_of(target)
    if runtime.resolve_isa is None:
        if asked != "auto":
            raise InputError(
                f"--cpu-isa {asked} with --target {target}, expected it only with cpu; drop "
                "it or choose --target cpu"
            )
        return None
    if not quantizes:
        return None
    if not builds and asked != "auto":
        return asked
    if not builds and not engines.has_module(runtime.library):
        return "portable"  # right wherever it is built
    if asked == "vnni" and runtime.resolve_isa("auto") != "vnni":
        raise InputError(
            "--cpu-isa vnni on a CPU without VNNI, whose 16-bit sums would saturate, expected auto "
            "or portable; drop it, or write the ONNX for another machine with --stop-after onnx"
        )
    return runtime.resolve_isa(asked)


def build_options(
    build: Build, data: Data, target: str, prepared: onnx.ModelProto
) -> engines.BuildOptions:
    """The builder's options: the flags, and what they leave to target and data."""
    runtime = engines.runtime_of(target)
    options = build.options
    return replace(
        options,
        target=target,  # type: ignore[arg-type]
        profiles=options.profiles or _profiles(options, data, runtime, prepared),
        float_part=build.float_part if "float_part" in runtime.options else None,
    )


def largest_batch(
    profiles: tuple[engines.Profile, ...], data: Data, prepared: onnx.ModelProto
) -> int:
    """Samples that may come at once."""
    specs = calibrators.resolved(calibrators.input_specs(prepared))
    axes = {spec.name: spec.axis for spec in specs if spec.axis is not None}
    sizes = [p.max[name][axis] for p in profiles for name, axis in axes.items() if name in p.max]
    return max(sizes, default=data.batch)


def trial_feeds(
    options: engines.BuildOptions, data: Data, prepared: onnx.ModelProto
) -> list[Arrays]:
    """What a builder that can hold its engine against itself does so on: one, then a batch."""
    if engines.runtime_of(options.target).compiled is None or data.calib_data is None:
        return []
    largest = largest_batch(options.profiles, data, prepared)
    return [requests[0] for requests in trial_requests(data, prepared, largest)]


def usual_shapes(build: Build, data: Data, prepared: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes that work is counted by: those asked for, else of the first sample alone.

    None where no axis but the batch is free, and where there are no samples.
    """
    if build.options.profiles:
        return dict(build.options.profiles[0].opt)
    inputs = calibrators.input_specs(prepared)
    free = any(
        not isinstance(size, int) and axis != spec.axis
        for spec in calibrators.resolved(inputs)
        for axis, size in enumerate(spec.shape)
    )
    if not free or not data.learns:
        return {}
    first = itertools.islice(calibration_samples(data, prepared), 1)
    batch = next(iter(calibrators.batches(first, 1, inputs=inputs)))
    return {name: tuple(array.shape) for name, array in batch.inputs.items()}


def refuse_calibrator(method: str) -> None:
    """Refuse a method that TensorRT itself does not have.

    Raises:
        InputError: which it has.
    """
    if method not in CALIBRATORS:
        raise InputError(
            f"--implicit with --calibrator {method}, expected one of TensorRT's own, "
            f"{', '.join(CALIBRATORS)}; or write --calib-cache and build with --calib"
        )


@contextmanager
def calibrating(
    method: str,
    data: Data,
    prepared: onnx.ModelProto,
    options: engines.BuildOptions,
    screen: Screen,
) -> Iterator[engines.BuildOptions]:
    """Options with TensorRT's own calibrator, fed with the same batches; up to TensorRT 10.16.

    Raises:
        InputError: the method is none of TensorRT's.
        UnsupportedError: this TensorRT has no calibrators.
    """
    refuse_calibrator(method)
    samples = calibration_samples(data, prepared)
    inputs = calibrators.input_specs(prepared)
    with screen.bar("batches") as progress:
        own, feeder = calibrator(
            method,
            calibrators.batches(samples, data.batch, inputs=inputs),
            progress=lambda done: progress(done, None),
        )
        with feeder:
            yield replace(options, calibrator=own, calibration_shapes=feeder.shapes)


def _profiles(
    options: engines.BuildOptions, data: Data, runtime: engines.Runtime, prepared: onnx.ModelProto
) -> tuple[engines.Profile, ...]:
    """The shape ranges of the data, where the runtime needs some.

    A dynamic batch becomes 1 to four times ``--calib-batch``; other dynamic dimensions take the
    smallest and largest size among the calibration samples. A DLA has one shape: ``--calib-batch``
    samples of the largest size.
    """
    inputs = calibrators.input_specs(prepared)
    dynamic = any(not isinstance(size, int) for spec in inputs for size in spec.shape)
    if not runtime.needs_profiles or not dynamic or data.calib_data is None:
        return ()
    limits = calibrators.shape_limits(calibration_samples(data, prepared))
    low, high = (_with_fixed_sizes(shapes, inputs) for shapes in limits)
    batch = data.batch if calibrators.has_batch_axis(inputs) else 1

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
    # A DLA takes fixed shapes only, so all three are one.
    if options.dla_core is not None:
        return (engines.Profile(min=usual, opt=usual, max=usual),)
    # min is one sample of the smallest size; opt, which kernels are timed for, a usual batch.
    return (engines.Profile(min=low, opt=usual, max=scaled(high, 4 * batch)),)


def _with_fixed_sizes(
    shapes: Mapping[str, tuple[int, ...]], inputs: Sequence[calibrators.InputSpec]
) -> dict[str, tuple[int, ...]]:
    """Shapes of samples with the sizes that the model fixes: a batch of it is several of them."""
    fixed = {spec.name: spec.shape for spec in inputs}
    return {
        name: tuple(
            size if isinstance(size, int) else free
            for size, free in zip(fixed[name], shape, strict=True)
        )
        for name, shape in shapes.items()
    }
