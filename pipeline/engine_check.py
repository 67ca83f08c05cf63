"""The engine, as it is loaded again from its file, against the graph it was made from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

import calibrators
import engines
import quantization
from artefacts.errors import BuilderError, DataError, ModelError, UnsupportedError
from graphs.comparable import chosen_shapes, with_outputs
from graphs.edit import drop_dead
from graphs.view import WEIGHTED_OPS, GraphView
from pipeline.building import build_options
from pipeline.calibration import calibration_samples, evaluation_samples
from pipeline.flags import Job
from pipeline.runtime_gap import FLOAT_LIMIT_DB, HALF_LIMIT_DB, Gap, GapMeter
from quantization.measure.execution import Run, load_int8, load_onnxruntime

__all__ = ["EngineCheck", "check_engine", "check_feeds"]

Arrays = Mapping[str, NDArray[Any]]
Call = Callable[[dict[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class EngineCheck:
    """What came of it.

    Attributes:
        gaps: every output at every batch size, the farthest from its limit first.
        unmeasured: why nothing was compared; empty where something was.
        cause: why engine and graph differ, where that is known.
        starts_at: the first layer at which they do, where it was found.
    """

    gaps: tuple[Gap, ...] = ()
    unmeasured: str = ""
    cause: str = ""
    starts_at: str = ""

    @property
    def explained(self) -> bool:
        """Whether rounding explains all differences."""
        return all(gap.explained for gap in self.gaps)

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "explained_by_rounding": None if self.unmeasured else self.explained,
            "unmeasured": self.unmeasured,
            "outputs": [asdict(gap) for gap in self.gaps],
            "cause": self.cause,
            "starts_at": self.starts_at,
        }

    def __str__(self) -> str:
        if self.unmeasured:
            return f"engine against its graph: not measured: {self.unmeasured}"
        worst = self.gaps[0]
        sizes = sorted({gap.batch for gap in self.gaps})
        batches = " and ".join(f"batch {size}" for size in sizes)
        if self.explained:
            return (
                f"engine against its graph: SQNR {worst.sqnr_db:.1f} dB, rounding explains "
                f"anything above {worst.limit_db:.1f} dB ({batches})"
            )
        where = f", from layer {self.starts_at} on" if self.starts_at else ""
        why = f": {self.cause}" if self.cause else ""
        return (
            f"output {worst.output} of the engine is {worst.sqnr_db:.1f} dB from its own graph at "
            f"batch {worst.batch}, expected {worst.limit_db:.1f} dB or more, which rounding "
            f"explains{where}{why}"
        )


def check_feeds(job: Job, prepared: onnx.ModelProto, largest: int) -> list[list[Arrays]]:
    """Inputs of a few requests: samples alone, then as many of them at once as may come.

    Raises:
        BuilderError: no samples can be read, or made up for the model's free axes.
    """
    inputs = calibrators.input_specs(prepared)
    if job.calib_data is not None or job.random_calibration is not None:
        samples = calibration_samples(job, prepared)
    elif job.eval_data is not None:
        samples = evaluation_samples(job, prepared)
    else:
        samples = calibrators.random_samples(inputs, count=SAMPLES, seed=0)
    few = list(itertools.islice(samples, SAMPLES))
    alone: list[Arrays] = [batch.inputs for batch in calibrators.batches(few, 1, inputs=inputs)]
    if not alone:
        raise DataError("0 samples were read, expected at least 1; check the data path")
    if (
        largest == 1
        or not calibrators.has_batch_axis(inputs)
        or calibrators.fixed_batch(inputs) == 1
    ):
        return [alone]
    many = list(itertools.islice(itertools.cycle(few), largest))
    together: list[Arrays] = [
        batch.inputs for batch in calibrators.batches(many, largest, inputs=inputs)
    ]
    return [alone, together]


def check_engine(
    job: Job,
    prepared: onnx.ModelProto,
    source: Path,
    manifest: engines.Manifest,
    engine: Call,
) -> EngineCheck:
    """Hold a loaded engine against its graph, at batch 1 and at the largest batch.

    Args:
        job: the flags.
        prepared: the float model; of a model that came quantized, its graph.
        source: the model that was built, without the float16 of its floating-point part.
        manifest: of the engine.
        engine: as it was loaded from its file.
    """
    batch = _largest_batch(job, prepared, manifest)
    try:
        feeds = check_feeds(job, prepared, batch)
        graph = load_int8(source)
        plain = _float_run(job, prepared)
        gaps = _compare(job, manifest, prepared, plain, graph, engine, feeds)
    except BuilderError as err:
        return EngineCheck(unmeasured=str(err))
    if not gaps:
        return EngineCheck(unmeasured="the shapes of all outputs depend on what is chosen")
    found = EngineCheck(gaps=tuple(gaps))
    if found.explained:
        return found
    model = quantization.load_model(source)
    limit = gaps[0].limit_db
    return EngineCheck(
        gaps=found.gaps,
        cause=_cause(manifest, model),
        starts_at=_first_layer(job, manifest, prepared, model, feeds[-1], limit),
    )


def _largest_batch(job: Job, prepared: onnx.ModelProto, manifest: engines.Manifest) -> int:
    inputs = calibrators.resolved(calibrators.input_specs(prepared))
    axes = {spec.name: spec.axis for spec in inputs}
    sizes = [
        shape[axis]
        for profile in manifest.profiles
        for name, shape in profile.max.items()
        if (axis := axes.get(name)) is not None
    ]
    return max(sizes, default=job.calib_batch)


def _float_run(job: Job, prepared: onnx.ModelProto) -> Run | None:
    """The float network beside an INT8 one; a model that came quantized without its rounding."""
    if job.precision != "int8" or job.implicit:
        return None
    if quantization.quantized_format(prepared) is None:
        return load_onnxruntime(prepared)
    try:
        return load_onnxruntime(quantization.strip(prepared).model)
    except ModelError:  # codes at the edge of the graph: it is held to the least limit
        return None


def _compare(
    job: Job,
    manifest: engines.Manifest,
    prepared: onnx.ModelProto,
    plain: Run | None,
    graph: Run,
    engine: Call,
    feeds: Sequence[Sequence[Arrays]],
) -> list[Gap]:
    view = GraphView(prepared)
    chosen = chosen_shapes(view)
    names = [name for name in view.outputs if view.is_float(name) and name not in chosen]
    gaps: list[Gap] = []
    for number, requests in enumerate(feeds):
        meter = GapMeter(
            batch=_rows(requests[0], prepared) if number else 1,
            limit_db=_float_limit(job, manifest),
        )
        for inputs in requests:
            try:
                written = graph(inputs)
                float_outputs = None if plain is None else plain(inputs)
            except ModelError:
                if not number:
                    raise
                break  # the graph itself takes one sample at a time
            meter.add(float_outputs, written, engine(dict(inputs)), names)
        gaps += meter.gaps()
    return sorted(gaps, key=lambda gap: gap.sqnr_db - gap.limit_db)


def _rows(request: Arrays, prepared: onnx.ModelProto) -> int:
    """Samples of a request of several."""
    specs = calibrators.resolved(calibrators.input_specs(prepared))
    return max(int(request[spec.name].shape[spec.axis or 0]) for spec in specs)


def _float_limit(job: Job, manifest: engines.Manifest) -> float | None:
    if job.precision == "int8":
        return None
    computed = str(manifest.build.get("inference_precision", "f16"))
    return FLOAT_LIMIT_DB if job.precision == "fp32" or computed == "f32" else HALF_LIMIT_DB


def _cause(manifest: engines.Manifest, model: onnx.ModelProto) -> str:
    if manifest.target != "cpu":
        return ""
    if engines.cpu_isa() == "portable" and engines.needed_cpu_isa(model) == "vnni":
        return (
            "sums of two products saturate on this CPU, which has no VNNI; bound the weights with "
            "--cpu-isa portable, or leave the layer in float with --exclude"
        )
    library = manifest.library
    return f"{library['name']} {library['version']} computes this graph otherwise"


def _first_layer(
    job: Job,
    manifest: engines.Manifest,
    prepared: onnx.ModelProto,
    model: onnx.ModelProto,
    feeds: Sequence[Arrays],
    limit_db: float,
) -> str:
    """The first weighted layer up to which the network, compiled alone, differs from its graph.

    By halving: what is wrong at a layer is taken to be wrong behind it, too.
    """
    if manifest.target != "cpu":
        return ""
    options = build_options(job, manifest.target, prepared)
    layers = [node for node in GraphView(model).nodes if node.op_type in WEIGHTED_OPS]

    def differs(place: int) -> bool:
        tensor = layers[place].outputs[0]
        part = onnx.ModelProto()
        part.CopyFrom(with_outputs(model, [tensor]))
        drop_dead(part.graph)
        meter = GapMeter(batch=1, limit_db=limit_db)
        graph, compiled = load_int8(part), engines.compiled_call(part, options)
        read = {value.name for value in part.graph.input}
        for inputs in feeds:
            given = {name: array for name, array in inputs.items() if name in read}
            meter.add(None, graph(given), compiled(given), [tensor])
        return not all(gap.explained for gap in meter.gaps())

    low, high = 0, len(layers)
    try:
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if differs(middle) else (middle + 1, high)
    except (ModelError, UnsupportedError):
        return ""
    return layers[low].name if low < len(layers) else ""
