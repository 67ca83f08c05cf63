#!/usr/bin/env python3
"""ONNX model and samples in; a measured INT8 engine out.

Five steps: prepare, calibrate, quantize, build, verify. Each leaves a file beside the engine.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from tqdm import tqdm

import calibrators
import engines
import quantization
from artefacts.errors import ArtefactError, BuilderError, DataError, InputError, UnsupportedError
from artefacts.files import sha256_file
from artefacts.graph_hash import graph_hash
from benchmarks.accuracy import evaluate_all
from benchmarks.accuracy.task import read_task
from benchmarks.onnx_system import OnnxSystem
from build_flags import SUFFIXES, Job, parse_job

__all__ = ["build", "main"]

logger = logging.getLogger("build_engine")
SHOWN_REASONS = 6
FP32 = "FP32 ONNX"
LIKENESS_SAMPLES = 32
LARGEST_GAP_DB = 3.0  # INT8 kernels of two runtimes differ by rounding, far less than this


class Screen:
    """What a person reads while the steps run: a line a step, a bar for a long one."""

    def __init__(self, *, bars: bool, steps: int) -> None:
        self.bars = bars
        self.steps = steps
        self.step = 0

    def say(self, title: str, *lines: str) -> None:
        """Announce a step, or add lines to the one announced."""
        if title:
            self.step += 1
            print(f"[{self.step}/{self.steps}] {title}", flush=True)
        for line in lines:
            print(f"      {line}", flush=True)

    @contextmanager
    def bar(self, unit: str) -> Iterator[Any]:
        """Yield ``progress(done, total)``: a bar on a terminal, a line every tenth elsewhere."""
        if not self.bars:
            yield _PlainProgress(unit)
            return
        with tqdm(unit=unit, leave=False, file=sys.stderr) as shown:

            def progress(done: int, total: int | None) -> None:
                shown.total = total
                shown.update(done - shown.n)

            yield progress


class _PlainProgress:
    """A line at each tenth, for logs."""

    def __init__(self, unit: str) -> None:
        self.unit, self.tenth = unit, 0

    def __call__(self, done: int, total: int | None) -> None:
        tenth = done * 10 // total if total else 0
        if tenth > self.tenth:
            self.tenth = tenth
            print(f"      {done} of {total} {self.unit}", flush=True)


def build(job: Job, screen: Screen) -> None:
    """Run the steps of one job.

    Raises:
        BuilderError: whatever the user can mend, with the sentence to print.
    """
    target = engines.resolve_target(job.target)
    prepared = prepare(job, screen)
    source, passport = job.beside(".prepared.onnx"), {"graph_hash": graph_hash(prepared)}
    if job.precision == "int8":
        profile: quantization.Profile = (
            "tensorrt" if target != "cpu" or job.simulate_target else "cpu"
        )
        placement = quantization.place(prepared, profile=profile, exclude=job.exclude)
        ranges = calibrate(job, prepared, placement, passport, screen)
        if job.stop_after == "ranges":
            return
        source = quantize(job, prepared, placement, ranges, passport, screen)
    if job.stop_after == "onnx":
        return
    built_from = halve(job, target, source, passport, screen)
    manifest = build_file(job, target, prepared, built_from, passport, screen)
    verify(job, prepared, source, manifest, screen)


def prepare(job: Job, screen: Screen) -> onnx.ModelProto:
    """Load, check and normalise the graph that every artefact refers to."""
    screen.say(f"prepare    {job.onnx}")
    model = quantization.load_model(job.onnx)
    prepared = quantization.prepare(model)
    quantization.save_model(prepared, job.beside(".prepared.onnx"))
    inputs = ", ".join(map(str, calibrators.input_specs(prepared)))
    screen.say("", f"{len(model.graph.node)} nodes → {len(prepared.graph.node)}; input {inputs}")
    return prepared


def calibrate(
    job: Job,
    prepared: onnx.ModelProto,
    placement: quantization.Placement,
    passport: dict[str, Any],
    screen: Screen,
) -> calibrators.Ranges:
    """One pass over the samples, then the range of each tensor by the chosen method."""
    samples = calibration_samples(job, prepared)
    screen.say(f"calibrate  {samples.path}, method {job.calibrator}")
    statistics = observe(job, prepared, placement, samples, screen)
    refuse_overlap(job, prepared, statistics)
    ranges = quantization.unify_ranges(
        calibrators.compute_ranges(statistics, method=job.calibrator), placement
    )
    ranges.save(job.beside(".ranges.json"))
    screen.say("", f"{len(statistics.samples)} samples, {len(ranges.tensors)} ranges")
    passport |= {
        "ranges_sha256": sha256_file(job.beside(".ranges.json")),
        "statistics_sha256": sha256_file(job.beside(".stats.npz")),
        "preprocess": ranges.preprocess,
        "labels": list(samples.classes) or None,
        "calibrator": job.calibrator,
        "samples": len(statistics.samples),
        "calibration_samples": sorted(statistics.samples),
    }
    return ranges


def observe(
    job: Job,
    prepared: onnx.ModelProto,
    placement: quantization.Placement,
    samples: calibrators.Samples,
    screen: Screen,
) -> calibrators.Statistics:
    """Statistics of the samples, going on from a checkpoint of the same run."""
    path = job.beside(".stats.npz")

    def go() -> calibrators.Statistics:
        with screen.bar("samples") as progress:
            return calibrators.observe(
                prepared,
                placement.tensors,
                samples,
                batch_size=job.calib_batch,
                checkpoint=path,
                preprocess=samples.preprocess.to_dict() if samples.preprocess else None,
                progress=progress,
            )

    try:
        return go()
    except ArtefactError as err:
        if not path.is_file():
            raise
        # Statistics of an earlier run with other data: an output, which this run replaces.
        logger.info("%s", err)
        screen.say("", f"{path} is of another run: observing afresh")
        path.unlink()
    return go()


def calibration_samples(job: Job, prepared: onnx.ModelProto) -> calibrators.Samples:
    """The calibration samples; random ones only where asked for.

    Raises:
        InputError: there are none.
    """
    inputs = calibrators.input_specs(prepared)
    if job.random_calibration is not None:
        return calibrators.random_samples(inputs, count=job.random_calibration, seed=0)
    if job.calib_data is None:
        raise InputError(
            "--precision int8 without --calib-data has nothing to take ranges from, expected an "
            "image folder, .npz, .npy or a Python file with load_data(); give one (or "
            "--random-calibration 8 to measure speed only)"
        )
    return calibrators.open_samples(
        job.calib_data, inputs=inputs, preprocess=spec_of(job), limit=job.calib_num
    )


def spec_of(job: Job) -> calibrators.Preprocess | None:
    """The preprocessing spec of the job."""
    return calibrators.Preprocess.from_yaml(job.preprocess) if job.preprocess else None


def evaluation_samples(job: Job, prepared: onnx.ModelProto) -> calibrators.Samples:
    """The labelled samples of ``--eval-data``."""
    assert job.eval_data is not None
    inputs = calibrators.input_specs(prepared)
    samples = calibrators.open_samples(job.eval_data, inputs=inputs, preprocess=spec_of(job))
    calibrators.require_labels(samples)
    return samples


def refuse_overlap(job: Job, prepared: onnx.ModelProto, statistics: calibrators.Statistics) -> None:
    """Accuracy on samples that were calibrated with says nothing.

    Raises:
        DataError: ``--eval-data`` holds calibration samples.
    """
    if job.eval_data is None or job.random_calibration is not None:
        return
    digests = set(statistics.samples)
    shared = [s.name for s in evaluation_samples(job, prepared) if s.digest in digests]
    if shared:
        raise DataError(
            f"--eval-data {job.eval_data} holds {len(shared)} of the calibration samples "
            f"({', '.join(shared[:3])}), expected none; accuracy would flatter: split the data"
        )


def quantize(
    job: Job,
    prepared: onnx.ModelProto,
    placement: quantization.Placement,
    ranges: calibrators.Ranges,
    passport: dict[str, Any],
    screen: Screen,
) -> Path:
    """Write the Q/DQ model; say which layers stay in floating point and why."""
    path = job.beside(".int8.onnx")
    screen.say(f"quantize   {path}")
    quantized = quantization.insert_qdq(
        prepared, placement, ranges, weights=job.weights, unsigned=job.cpu_unsigned
    )
    quantization.save_model(quantized, path)
    share = placement.int8_mac_share(prepared)
    screen.say(
        "",
        f"{len(placement.int8_nodes)} layers read INT8 ({share:.1%} of multiply-accumulates), "
        f"{len(placement.floating)} stay in floating point",
    )
    reasons = Counter((layer.op_type, layer.rule, layer.why) for layer in placement.floating)
    for (op_type, rule, why), times in reasons.most_common(SHOWN_REASONS):
        screen.say("", f"  {times} {op_type}: {why} ({rule})")
    if len(reasons) > SHOWN_REASONS:
        screen.say(
            "", f"  and {len(reasons) - SHOWN_REASONS} more reasons; all are in the manifest"
        )
    passport["placement"] = {
        "profile": placement.profile,
        "int8_layers": list(placement.int8_nodes),
        "int8_mac_share": share,
        "floating": [vars(layer) | {} for layer in placement.floating],
    }
    return path


def halve(job: Job, target: str, source: Path, passport: dict[str, Any], screen: Screen) -> Path:
    """The floating-point part in float16, where the target takes types from the graph."""
    part = "fp16" if job.precision == "fp16" else job.float_part
    if part is None:
        part = "fp32" if target == "cpu" or job.precision == "fp32" else "fp16"
    if part == "fp32" or target == "cpu":
        return source
    amax = {}
    if job.precision == "int8":
        statistics = calibrators.Statistics.load(job.beside(".stats.npz"))
        amax = {name: entry.amax for name, entry in statistics.tensors.items()}
    half = quantization.to_float16(quantization.load_model(source), amax)
    path = job.beside(".fp16.onnx")
    quantization.save_model(half.model, path)
    screen.say("", f"{half.halved} operators in FP16, {len(half.kept)} stay in FP32: {path}")
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
    screen.say(f"build      {job.engine}, target {target}")
    options = engines.BuildOptions(
        target=target,  # type: ignore[arg-type]
        precision=job.precision,
        profiles=profiles(job, target, prepared),
        workspace_mib=job.workspace,
        memory_pools_mib=job.mem_pool_size,
        timing_cache=job.timing_cache,
        optimization_level=job.optimization_level,
        tf32=not job.no_tf32,
        compute_capabilities=job.compute_capability,
        dla_core=job.dla_core,
        allow_gpu_fallback=job.allow_gpu_fallback,
        hardware_compatibility=job.hardware_compatibility,
        version_compatible=job.version_compatible,
        tactic_sources=job.tactic_sources,
        preview_features=job.preview,
        threads=job.threads,
        require_int8=job.require_int8,
    )
    manifest = engines.build(source, job.engine, options, passport)
    if manifest.coverage is not None and job.precision == "int8":
        coverage = manifest.coverage
        screen.say(
            "",
            f"{len(coverage.int8_layers)} of {len(coverage.nodes)} layers run INT8, "
            f"{coverage.int8_mac_share:.1%} of multiply-accumulates ({coverage.source})",
        )
    return manifest


def profiles(job: Job, target: str, prepared: onnx.ModelProto) -> tuple[engines.Profile, ...]:
    """The shape ranges of the flags, else those of the data where TensorRT needs some.

    A dynamic batch becomes 1 to four times ``--calib-batch``; other dynamic dimensions take the
    smallest and largest size among the calibration samples.
    """
    given = [job.min_shapes, job.opt_shapes, job.max_shapes]
    if any(given):
        lowest, usual, highest = (s or job.opt_shapes or job.max_shapes for s in given)
        return (engines.Profile(min=lowest, opt=usual, max=highest),)
    inputs = calibrators.input_specs(prepared)
    dynamic = any(not isinstance(size, int) for spec in inputs for size in spec.shape)
    if target == "cpu" or not dynamic or job.calib_data is None:
        return ()
    low, high = calibrators.shape_limits(calibration_samples(job, prepared))
    batch = job.calib_batch if calibrators.has_batch_axis(inputs) else 1

    def scaled(shapes: Mapping[str, tuple[int, ...]], factor: int) -> dict[str, tuple[int, ...]]:
        sized = {spec.name: isinstance(spec.shape[0], int) for spec in inputs if spec.shape}
        return {
            name: shape if sized.get(name, True) else (shape[0] * factor, *shape[1:])
            for name, shape in shapes.items()
        }

    return (engines.Profile(min=low, opt=scaled(high, batch), max=scaled(high, 4 * batch)),)


def verify(
    job: Job,
    prepared: onnx.ModelProto,
    source: Path,
    manifest: engines.Manifest,
    screen: Screen,
) -> None:
    """Load the engine as a service would and measure what can be measured here."""
    screen.say(f"verify     {job.engine}")
    kind = job.precision.upper()
    systems: dict[str, Any] = {FP32: OnnxSystem(job.onnx)}
    try:
        systems[f"{kind} engine"] = engines.load(job.engine)
    except UnsupportedError as err:
        screen.say("", f"not run here: {err}")
    if job.precision == "int8":
        systems["INT8 ONNX"] = OnnxSystem(source)
    if job.eval_data is not None or job.calib_data is not None:
        measure(job, prepared, systems, screen)
    before, after = job.onnx.stat().st_size, manifest.engine_bytes
    screen.say("", f"size {before / 1e6:.2f} MB (ONNX) → {after / 1e6:.2f} MB (engine)")
    screen.say("", *(f"wrote {path}" for path in written(job)))


def measure(job: Job, prepared: onnx.ModelProto, systems: dict[str, Any], screen: Screen) -> None:
    """Accuracy on ``--eval-data``, else likeness to FP32 on calibration samples; kept."""
    labelled = job.eval_data is not None
    samples = (
        evaluation_samples(job, prepared)
        if labelled
        else calibration_samples(job, prepared)[:LIKENESS_SAMPLES]
    )
    with screen.bar("samples") as progress:
        results = evaluate_all(
            systems,
            samples,
            read_task(job.task) if job.task else None,
            inputs=calibrators.input_specs(prepared),
            batch_size=job.calib_batch,
            reference=FP32,
            labelled=labelled,
            on_sample=lambda done: progress(done, _length(samples)),
        )
    measured: dict[str, dict[str, Any]] = {}
    for name, result in results.items():
        figures: dict[str, Any] = dict(result.figures, samples=result.samples)
        parts = [f"{result.metric} {result.value:.2%}"] if result.metric else []
        if result.agreement is not None:
            levels = [output.sqnr_db for output in result.agreement.outputs.values()]
            figures["sqnr_db"] = min((level for level in levels if level is not None), default=None)
            if figures["sqnr_db"] is not None:
                parts.append(f"SQNR {figures['sqnr_db']:.1f} dB against FP32")
        if parts:
            screen.say("", f"{name}: {', '.join(parts)} ({result.samples} samples)")
        measured[name] = figures
    engines.add_measured(job.engine, accuracy=measured)
    warn_if_engine_differs(measured, screen)


def warn_if_engine_differs(measured: Mapping[str, Mapping[str, Any]], screen: Screen) -> None:
    """A runtime that computes something else than its own model says: never keep that quiet."""
    engine, model = (measured.get(f"INT8 {kind}", {}).get("sqnr_db") for kind in ("engine", "ONNX"))
    if engine is not None and model is not None and engine < model - LARGEST_GAP_DB:
        screen.say(
            "",
            f"warning: the engine is {model - engine:.1f} dB further from FP32 than its own ONNX "
            "in onnxruntime, expected about the same; do not ship it before you know why",
        )


def _length(samples: calibrators.Samples) -> int | None:
    try:
        return len(samples)
    except TypeError:
        return None


def written(job: Job) -> list[Path]:
    """The files of the job that are there, in the order of the steps."""
    paths = [*map(job.beside, SUFFIXES), job.engine, Path(f"{job.engine}.json")]
    return [path for path in paths if path.is_file()]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 1 a gate missed, 2 bad input or environment."""
    debug = "--debug" in (sys.argv if argv is None else argv)
    try:
        job = parse_job(argv)
        logging.basicConfig(level=logging.INFO if job.verbose else logging.ERROR)
        build(job, Screen(bars=sys.stderr.isatty(), steps=5 if job.precision == "int8" else 3))
    except BuilderError as err:
        if debug:
            traceback.print_exc()
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("interrupted; calibration goes on from its checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
