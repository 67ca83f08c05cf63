"""What a run would do, told before it does it."""

from __future__ import annotations

from pathlib import Path

from graphs.macs import network_macs
from graphs.view import GraphView
from pipeline.calibration import statistics_path
from pipeline.checked_first import Ready
from pipeline.job import Job
from pipeline.needs import needs_of

__all__ = ["plan_of"]

Step = tuple[str, list[Path]]


def plan_of(ready: Ready) -> list[str]:
    """Lines: each step and the files that it writes; of those that are there, what becomes."""
    steps = _taken(ready) if ready.taken else _steps(ready)
    lines = [f"{ready.job.paths.onnx}: nothing speaks against this job; it would"]
    for number, (title, files) in enumerate(steps, 1):
        lines.append(f"[{number}/{len(steps)}] {title}")
        lines += [f"      {_fate(ready.job, path)}" for path in files]
    job = ready.job
    fits = not ready.taken and job.build.precision == "int8" and not job.build.implicit
    return [*lines, f"estimated: {needs_of(job, ready.loaded.model, fits=fits)}"]


def _taken(ready: Ready) -> list[Step]:
    """A model that came quantized."""
    job = ready.job
    steps = [("take it as it is: it is quantized already", [job.paths.beside(".int8.onnx")])]
    return steps + ([] if job.stop_after else _ending(ready))


def _steps(ready: Ready) -> list[Step]:
    job, beside = ready.job, ready.job.paths.beside
    steps: list[Step] = [("prepare the float graph", [beside(".prepared.onnx")])]
    if job.build.precision != "int8" or job.build.implicit:
        return steps + _ending(ready)
    origin = job.calibrate.statistics or job.data.calib_data or "random samples"
    files = [statistics_path(job.paths, job.data)] if job.calibrate.statistics is None else []
    ends = job.data.shard is not None
    files += [] if ends else [beside(".ranges.json")]
    files += [job.calibrate.cache] if job.calibrate.cache is not None and not ends else []
    steps.append((f"calibrate on {origin}, method {job.calibrate.method}", files))
    if ends or job.stop_after == "ranges":
        return steps
    macs = network_macs(GraphView(ready.loaded.model))
    fitted, promise = job.quantize.samples_for(macs), job.quantize.promise
    title = "quantize" + (f", fitted to up to {fitted} samples" if fitted else "")
    files = [beside(".improved.onnx"), beside(".int8.onnx")]
    if promise is not None:
        title += f", layers left in float until {promise} is kept"
        files += [beside(".search.json"), beside(".recipe.yaml")]
    steps.append((title, files))
    return steps if job.stop_after == "onnx" else steps + _ending(ready)


def _ending(ready: Ready) -> list[Step]:
    engine = ready.job.paths.engine
    cache = ready.job.build.options.timing_cache
    arithmetic = f", INT8 arithmetic {ready.isa}" if ready.isa else ""
    built = [engine, Path(f"{engine}.json"), *([cache] if cache is not None else [])]
    data = ready.job.data.eval_data or ready.job.data.calib_data
    return [
        (f"build for target {ready.target}{arithmetic}", built),
        (f"verify the engine against its graph{f', measure on {data}' if data else ''}", []),
    ]


def _fate(job: Job, path: Path) -> str:
    """What becomes of a file."""
    if not path.exists():
        return f"writes {path}"
    if path in (statistics_path(job.paths, job.data), job.build.options.timing_cache):
        return f"goes on from {path} where it is of the same model and data, else replaces it"
    return f"replaces {path}"
