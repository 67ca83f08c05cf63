"""The engine, as it is loaded again from its file, against the graph it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

import calibrators
import engines
import quantization
from artefacts.errors import BuilderError, ModelError, UnsupportedError
from graphs.comparable import chosen_shapes, with_outputs
from graphs.edit import drop_dead
from graphs.operators import WEIGHTED_OPS
from graphs.view import GraphView
from pipeline.building import largest_batch
from pipeline.built import Built, Sessions
from pipeline.job import Data
from pipeline.runtime_gap import (
    FLOAT_LIMIT_DB,
    HALF_LIMIT_DB,
    Gap,
    GapMeter,
    allow_chance,
    farthest_first,
)
from pipeline.samples import Arrays, trial_requests
from quantization.measure.execution import load_int8
from quantization.measure.jitter import jitter_scales

__all__ = ["ALL_CHOSEN", "EngineCheck", "check_engine", "compared_outputs", "float_limit"]

ALL_CHOSEN = "the shapes of all outputs depend on the data (NMS, a decoder)"

Call = Callable[[dict[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]


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
                f"engine against its graph: SQNR of the engine {worst.sqnr_db:.1f} dB, rounding "
                f"explains anything above {worst.limit_db:.1f} dB ({batches})"
            )
        where = f", from layer {self.starts_at} on" if self.starts_at else ""
        why = f": {self.cause}" if self.cause else ""
        return (
            f"output {worst.output} of the engine is {worst.sqnr_db:.1f} dB from its own graph at "
            f"batch {worst.batch}, expected {worst.limit_db:.1f} dB or more, which rounding "
            f"explains{where}{why}"
        )


def check_engine(built: Built, sessions: Sessions, data: Data, engine: Call) -> EngineCheck:
    """Hold a loaded engine against its graph, at batch 1 and at the largest batch.

    Args:
        built: the engine, and what it came from.
        sessions: its graph, and the float network beside it.
        data: samples for the requests.
        engine: as it was loaded from its file.
    """
    batch = largest_batch(built.manifest.profiles, data, built.prepared)
    try:
        feeds = trial_requests(data, built.prepared, batch)
        gaps = _compare(built, sessions, engine, feeds)
    except BuilderError as err:
        return EngineCheck(unmeasured=str(err))
    if not gaps:
        return EngineCheck(unmeasured=ALL_CHOSEN)
    found = EngineCheck(gaps=gaps)
    if found.explained:
        return found
    # From here on it costs runs and compilations, so only for an engine that looks wrong.
    model = quantization.load_model(built.source)
    if built.manifest.precision == "int8":
        chance = _compare(built, sessions, load_int8(jitter_scales(model)), feeds)
        found = EngineCheck(gaps=allow_chance(gaps, chance))
        if found.explained:
            return found
    limit = gaps[0].limit_db
    return EngineCheck(
        gaps=found.gaps,
        cause=_cause(built.manifest, model),
        starts_at=_first_layer(built.options, model, feeds[-1], limit),
    )


def _compare(
    built: Built, sessions: Sessions, engine: Call, feeds: Sequence[Sequence[Arrays]]
) -> tuple[Gap, ...]:
    graph, plain = sessions.graph, sessions.plain
    names = compared_outputs(built)
    gaps: list[Gap] = []
    for number, requests in enumerate(feeds):
        meter = GapMeter(
            batch=_rows(requests[0], built.prepared) if number else 1,
            limit_db=float_limit(built.manifest),
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
    return farthest_first(gaps)


def _rows(request: Arrays, prepared: onnx.ModelProto) -> int:
    """Samples of a request of several."""
    specs = calibrators.resolved(calibrators.input_specs(prepared))
    return max(int(request[spec.name].shape[spec.axis or 0]) for spec in specs)


def compared_outputs(built: Built) -> list[str]:
    """Names of the outputs that are real values, as many whatever the data."""
    view = GraphView(built.prepared)
    chosen = chosen_shapes(view)
    return [name for name in view.outputs if view.is_float(name) and name not in chosen]


def float_limit(manifest: engines.Manifest) -> float | None:
    """What an engine in floating point is held to; None for INT8."""
    if manifest.precision == "int8":
        return None
    computed = str(manifest.build.get("inference_precision", "f16"))
    return FLOAT_LIMIT_DB if manifest.precision == "fp32" or computed == "f32" else HALF_LIMIT_DB


def _cause(manifest: engines.Manifest, model: onnx.ModelProto) -> str:
    if engines.runtime_of(manifest.target).resolve_isa is None:
        return ""
    if engines.cpu_isa() == "portable" and engines.needed_cpu_isa(model) == "vnni":
        return (
            "sums of two products saturate on this CPU, which has no VNNI; bound the weights with "
            "--cpu-isa portable, or leave the layer in float with --exclude"
        )
    library = manifest.library
    return f"{library['name']} {library['version']} computes this graph otherwise"


def _first_layer(
    options: engines.BuildOptions,
    model: onnx.ModelProto,
    feeds: Sequence[Arrays],
    limit_db: float,
) -> str:
    """The first weighted layer up to which the network, compiled alone, differs from its graph.

    By halving: what is wrong at a layer is taken to be wrong behind it, too.
    """
    compile_model = engines.runtime_of(options.target).compiled
    if compile_model is None:
        return ""
    layers = [node for node in GraphView(model).nodes if node.op_type in WEIGHTED_OPS]

    def differs(place: int) -> bool:
        tensor = layers[place].outputs[0]
        part = with_outputs(model, [tensor])
        drop_dead(part.graph)
        meter = GapMeter(batch=1, limit_db=limit_db)
        graph, compiled = load_int8(part), compile_model(part, options)
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
