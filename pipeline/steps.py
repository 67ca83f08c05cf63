"""The steps of one job, in order: prepare, calibrate, quantize, build, verify."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx

import calibrators
import engines
import quantization
from calibrators.samples.axes import NOTE
from graphs.identity import graph_hash
from pipeline.building import build_file, halve, settle_cpu_isa
from pipeline.calibration import calibrate, calibration_samples
from pipeline.flags import Job
from pipeline.improvement import improve
from pipeline.obstacles import refuse_unbuildable
from pipeline.recipes import follow, with_recipe
from pipeline.sample_axes import settle_axes
from pipeline.screen import Screen
from pipeline.search import Mixture, keep_promise, refuse_if_missed, refuse_searching
from pipeline.verification import judge_onnx, refuse_gap, verify
from quantization.foreign.bound import bound_weights
from quantization.improve.improve import Improved
from quantization.improve.methods import NOTHING
from quantization.search.recipe import Recipe

__all__ = ["run"]

SHOWN_REASONS = 6
BOUNDING_SAMPLES = 32


def run(job: Job, screen: Screen) -> None:
    """Run the steps of one job; what it makes lies beside the engine.

    Raises:
        BuilderError: whatever the user can mend, with the sentence to print.
    """
    target = engines.resolve_target(job.target)
    isa = settle_cpu_isa(job, target)
    job, recipe = with_recipe(job)
    obstacle = ""
    model = quantization.load_model(job.onnx)
    if job.stop_after is None:  # else the engine is built elsewhere, by a release not known here
        engines.check_opset(target, model)
    if job.precision == "int8" and quantization.quantized_format(model) is not None:
        refuse_searching(job)
        prepared, source = take(job, isa, model, screen)
        refuse_unbuildable(job, target, prepared, source)
        passport = first_facts(prepared)
    else:
        prepared = prepare(job, model, screen)
        passport = first_facts(prepared)
        source = job.beside(".prepared.onnx")
        refuse_unbuildable(job, target, prepared, source)
        if job.precision == "int8" and not job.implicit:
            placement = quantization.place(
                prepared,
                profile=profile_of(job, target),
                exclude=job.exclude,
                unsigned=job.cpu_unsigned,
                portable=isa == "portable",
            )
            ranges = calibrate(job, prepared, placement, passport, screen)
            if ranges is None or job.stop_after == "ranges":
                return
            mixture = mix(job, target, recipe, prepared, placement, ranges, passport, screen)
            source = quantize(job, prepared, mixture, passport, screen)
            obstacle = mixture.obstacle
    if job.stop_after == "onnx":
        refuse_if_missed(job, source, obstacle, judge_onnx(job, prepared, source, screen))
        return
    built_from = halve(job, target, source, passport, screen)
    manifest = build_file(job, target, prepared, built_from, passport, screen)
    check, verdict = verify(job, prepared, source, manifest, screen)
    if job.sign is not None:  # last: the signature covers what was measured
        screen.add(f"wrote {engines.sign(job.engine, job.sign)}")
    refuse_gap(job, check)
    gap = "" if check.explained else f"the runtime is the cause: {check}"
    refuse_if_missed(job, job.engine, obstacle, verdict, gap)


def first_facts(prepared: onnx.ModelProto) -> dict[str, Any]:
    """What the engine's passport says of the graph: its hash, and what a sample of it is."""
    inputs = calibrators.resolved(calibrators.input_specs(prepared))
    axes = {spec.name: spec.axis for spec in inputs}
    apart = all(spec.apart for spec in inputs)
    return {
        "graph_hash": graph_hash(prepared),
        NOTE: calibrators.SampleAxes(axes=axes, apart=apart).to_dict(),
    }


def profile_of(job: Job, target: str) -> quantization.Profile:
    """Whose placement rules: those of the target, or of the one that the cpu simulates."""
    return "tensorrt" if target != "cpu" or job.simulate_target else "cpu"


def take(
    job: Job, isa: str | None, model: onnx.ModelProto, screen: Screen
) -> tuple[onnx.ModelProto, Path]:
    """A model that is quantized already is built as it is: no calibration.

    Returns:
        The model as it came, and the file to build from: with other weights for a CPU without VNNI.
    """
    screen.start(f"prepare    {job.onnx}")
    imported = quantization.import_quantized(model)
    screen.add(f"{imported.format} model of {imported.origin}: taken as it is, not calibrated")
    screen.add(*imported.notes)
    taken = settle_axes(job, imported.model, screen)
    source = job.beside(".int8.onnx")
    quantization.save_model(taken, source)
    portable = bounded(job, taken, screen) if isa == "portable" else None
    if portable is not None:
        source = job.beside(".portable.onnx")
        quantization.save_model(portable, source)
    return taken, source


def bounded(job: Job, model: onnx.ModelProto, screen: Screen) -> onnx.ModelProto | None:
    """A quantized model with pairs of weights that no CPU saturates; None where it is one."""
    feeds: list[Any] = []
    if job.calib_data is not None:
        inputs = calibrators.input_specs(model)
        samples = calibration_samples(job, model)[:BOUNDING_SAMPLES]
        feeds = [batch.inputs for batch in calibrators.batches(samples, 1, inputs=inputs)]
    found = bound_weights(model, feeds)
    if found.layers:
        screen.add(
            f"for CPUs without VNNI: {found.channels:.1%} of the output channels have other codes "
            f"(in {len(found.layers)} layers), so that no sum of two products saturates"
        )
    if found.released:
        screen.add(f"{len(found.released)} products of two activations run in float, likewise")
    return found.model if found.layers or found.released else None


def prepare(job: Job, model: onnx.ModelProto, screen: Screen) -> onnx.ModelProto:
    """Load, check and normalise the graph that every artefact refers to."""
    screen.start(f"prepare    {job.onnx}")
    prepared = quantization.prepare(model)
    inputs = ", ".join(map(str, calibrators.input_specs(prepared)))
    screen.add(f"{len(model.graph.node)} nodes → {len(prepared.graph.node)}; input {inputs}")
    prepared = settle_axes(job, prepared, screen)
    quantization.save_model(prepared, job.beside(".prepared.onnx"))
    return prepared


def mix(
    job: Job,
    target: str,
    recipe: Recipe | None,
    prepared: onnx.ModelProto,
    placement: quantization.Placement,
    ranges: calibrators.Ranges,
    passport: dict[str, Any],
    screen: Screen,
) -> Mixture:
    """Better INT8 first; then, where a promise or a recipe says so, layers left in float."""
    screen.start(f"quantize   {job.beside('.int8.onnx')}")
    if recipe is not None:
        return follow(job, recipe, prepared, placement, ranges, passport, screen)
    if job.promise is not None:
        return keep_promise(job, target, prepared, placement, ranges, passport, screen)
    better = improve(job, prepared, placement, ranges, passport, screen)
    plain = Improved(model=prepared, ranges=ranges, weights={}, methods=NOTHING)
    return Mixture(placement=placement, improved=better or plain)


def quantize(
    job: Job,
    prepared: onnx.ModelProto,
    mixture: Mixture,
    passport: dict[str, Any],
    screen: Screen,
) -> Path:
    """Write the Q/DQ model; say which layers stay in floating point and why."""
    path, placement = job.beside(".int8.onnx"), mixture.placement
    quantized = mixture.improved.quantized(placement, weights=job.weights)
    quantization.save_model(quantized, path)
    share = placement.int8_mac_share(prepared)
    screen.add(
        f"{len(placement.int8_nodes)} layers read INT8 ({share:.1%} of multiply-accumulates), "
        f"{len(placement.floating)} stay in floating point",
    )
    reasons = Counter((layer.op_type, layer.rule, layer.why) for layer in placement.floating)
    for (op_type, rule, why), times in reasons.most_common(SHOWN_REASONS):
        screen.add(f"  {times} {op_type}: {why} ({rule})")
    if len(reasons) > SHOWN_REASONS:
        screen.add(f"  and {len(reasons) - SHOWN_REASONS} more reasons; all are in the manifest")
    passport["placement"] = {
        "profile": placement.profile,
        "int8_layers": list(placement.int8_nodes),
        "int8_mac_share": share,
        "floating": [vars(layer) | {} for layer in placement.floating],
    }
    return path
