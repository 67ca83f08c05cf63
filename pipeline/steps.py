"""The steps of one job, in order: prepare, calibrate, quantize, build, verify."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx

import calibrators
import engines
import quantization
from graphs.tensor_data import outline
from graphs.walk import nodes
from pipeline.building import (
    build_file,
    build_options,
    calibrating,
    convert_to_float16,
    trial_feeds,
)
from pipeline.built import Built
from pipeline.calibration import Calibrated, calibrate
from pipeline.checked_first import Loaded, Ready, check_evaluation, check_first, check_operators
from pipeline.erased import all_that_survives
from pipeline.fixed_sizes import fix_sizes
from pipeline.gates import refuse_gap, refuse_if_missed
from pipeline.improvement import Improver
from pipeline.job import Data, Job
from pipeline.mixed_precision import MixedPrecision, passport_of, record, say_placement
from pipeline.needs import needs_of
from pipeline.plan import plan_of
from pipeline.preprocessing import Described, settle_preprocess, with_description
from pipeline.recipes import follow
from pipeline.replaced import what_is_replaced
from pipeline.sample_axes import graph_passport, settle_axes
from pipeline.samples import calibration_samples
from pipeline.screen import Screen
from pipeline.search import PromiseSearch
from pipeline.turns import one_at_a_time
from pipeline.verification import judge_onnx, verify
from quantization.foreign.bound import bound_weights
from quantization.search.recipe import Recipe

__all__ = ["placing", "run", "run_checked"]

BOUNDING_SAMPLES = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What an engine is built from.

    Attributes:
        prepared: the float model; of a model that came quantized, its graph.
        path: of the model, which is read anew to be built.
        passport: what the manifest will say of it.
        statistics: of its tensors, where they were calibrated.
        obstacle: why a promise cannot be kept; empty where it can, or none was given.
    """

    prepared: onnx.ModelProto
    path: Path
    passport: engines.Passport
    statistics: Path | None = None
    obstacle: str = ""


def run(job: Job, screen: Screen) -> None:
    """Run the steps of one job; what it makes lies beside the engine.

    Raises:
        BuilderError: whatever the user can mend, with the sentence to print.
    """
    run_checked(check_first(job), screen)


def run_checked(ready: Ready, screen: Screen) -> None:
    """The steps of a job that was checked.

    Raises:
        BuilderError: whatever the user can mend, with the sentence to print.
    """
    data, known = settle_preprocess(ready.job.paths, ready.job.data, ready.loaded.model, screen)
    job = replace(ready.job, data=data)
    if job.show.dry_run:
        screen.tell(plan_of(replace(ready, job=job)))
        return
    with one_at_a_time(job, screen):
        _run(replace(ready, job=job), known, screen)


def _run(ready: Ready, known: Described, screen: Screen) -> None:
    job, target, isa, recipe = ready.job, ready.target, ready.isa, ready.recipe
    if ready.taken:
        source: Source | None = use_quantized_model(job, target, isa, ready.loaded.take(), screen)
    else:
        source = _made(job, target, isa, recipe, ready.loaded, screen)
    promise = job.quantize.promise
    if source is None:
        return
    source = replace(source, passport=with_description(source.passport, known))
    if job.stop_after == "onnx":
        verdict = judge_onnx(job.data, promise, source.prepared, source.path, screen)
        refuse_if_missed(promise, source.path, source.obstacle, verdict)
        return
    if not ready.taken:  # its large weights are read from its file from here on
        source = replace(source, prepared=outline(source.prepared))
    built = build(job, target, source, screen)
    check, verdict = verify(built, job.data, promise, screen, job.verify.save_outputs)
    if job.verify.sign is not None:  # last: the signature covers what was measured
        screen.add(f"wrote {engines.sign(job.paths.engine, job.verify.sign)}")
    # After everything is written and said: a gate ends the run, it takes nothing away.
    refuse_gap(job.paths.engine, check, allowed=job.verify.allow_runtime_gap)
    gap = "" if check.explained else f"the runtime is the cause: {check}"
    refuse_if_missed(promise, job.paths.engine, source.obstacle, verdict, gap)


def _made(
    job: Job, target: str, isa: str | None, recipe: Recipe | None, loaded: Loaded, screen: Screen
) -> Source | None:
    """What is built from a float model; None where the ranges are the end."""
    prepared = prepare(job, target, loaded, screen)
    if job.build.precision == "int8" and not job.build.implicit:
        return quantized(job, target, isa, recipe, prepared, screen)
    path = job.paths.beside(".prepared.onnx")
    return Source(prepared=prepared, path=path, passport=graph_passport(prepared))


def use_quantized_model(
    job: Job, target: str, isa: str | None, model: onnx.ModelProto, screen: Screen
) -> Source:
    """A model that is quantized already is built as it is: no calibration.

    Returns:
        The model as it came, and the file to build from: with other weights for a CPU without VNNI.
    """
    paths, data = job.paths, job.data
    screen.start(f"prepare    {paths.onnx}")
    screen.add(*what_is_replaced(paths))
    one_type = engines.runtime_of(target).one_float_type
    imported = quantization.import_quantized(model, widen=one_type)
    screen.add(f"{imported.format} model of {imported.origin}: taken as it is, not calibrated")
    screen.add(*imported.notes)
    screen.add(*check_operators(job, target, imported.model))
    taken = settle_axes(data, imported.model, screen)
    check_evaluation(data, taken)
    path = paths.beside(".int8.onnx")
    quantization.save_model(taken, path)
    portable = bounded(data, taken, screen) if isa == "portable" else None
    if portable is not None:
        path = paths.beside(".portable.onnx")
        quantization.save_model(portable, path)
    return Source(prepared=taken, path=path, passport=graph_passport(taken))


def bounded(data: Data, model: onnx.ModelProto, screen: Screen) -> onnx.ModelProto | None:
    """A quantized model with pairs of weights that no CPU saturates; None where it is one."""
    feeds: list[Any] = []
    if data.calib_data is not None:
        inputs = calibrators.input_specs(model)
        samples = calibration_samples(data, model)[:BOUNDING_SAMPLES]
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


def prepare(job: Job, target: str, loaded: Loaded, screen: Screen) -> onnx.ModelProto:
    """Load, check and normalise the graph that every artefact refers to."""
    screen.start(f"prepare    {job.paths.onnx}")
    screen.add(*what_is_replaced(job.paths), *loaded.notes)
    before = len(nodes(loaded.model))
    prepared = quantization.prepare(loaded.take())
    inputs = ", ".join(map(str, calibrators.input_specs(prepared)))
    screen.add(f"{before} nodes → {len(nodes(prepared))}; input {inputs}")
    prepared = fix_sizes(prepared, job.build.options.profiles, screen)
    screen.add(*check_operators(job, target, prepared))
    prepared = settle_axes(job.data, prepared, screen)
    check_evaluation(job.data, prepared)
    quantization.save_model(prepared, job.paths.beside(".prepared.onnx"))
    return prepared


def quantized(
    job: Job,
    target: str,
    isa: str | None,
    recipe: Recipe | None,
    prepared: onnx.ModelProto,
    screen: Screen,
) -> Source | None:
    """Calibrate, choose precisions, write the Q/DQ model; None where the ranges are the end."""
    place = placing(job, target, isa, prepared)
    screen.add(*needs_of(job, prepared, fits=True).long())
    given = calibrate(job.paths, job.data, job.calibrate, prepared, place, screen)
    if given is None or job.stop_after == "ranges":
        return None
    path = job.paths.beside(".int8.onnx")
    screen.start(f"quantize   {path}")
    mixed = choose_precisions(job, target, recipe, given, screen)
    # Before the passport, which has the hash of the ranges' file that this may write anew.
    record(job.paths, mixed)
    int8 = mixed.improved.quantized(mixed.placement, weights=job.quantize.weights)
    quantization.save_model(int8, path)
    passport = passport_of(job, given, mixed)
    say_placement(mixed.placement, passport, screen)
    return Source(
        prepared=prepared,
        path=path,
        passport=passport,
        statistics=given.statistics,
        obstacle=mixed.obstacle,
    )


def placing(
    job: Job, target: str, isa: str | None, prepared: onnx.ModelProto
) -> Callable[..., quantization.Placement]:
    """What places Q/DQ for a job; its ranges may be given as ``amax=``."""
    runtime = engines.runtime_of(target)
    return partial(
        quantization.place,
        prepared,
        profile="tensorrt" if job.quantize.simulate_target else runtime.placement,
        exclude=job.quantize.exclude,
        attention=job.quantize.attention,
        unsigned=job.quantize.unsigned,
        portable=isa == "portable",
        lacking=runtime.lacks_int8,
    )


def choose_precisions(
    job: Job, target: str, recipe: Recipe | None, given: Calibrated, screen: Screen
) -> MixedPrecision:
    """Better INT8 first; then, where a promise or a recipe says so, layers left in float."""
    asked = job.quantize
    if asked.not_improved and job.data.learns:
        screen.add(asked.not_improved)
    improver = Improver.of(job, screen)
    if recipe is not None:
        return follow(asked.recipe, recipe, given, improver)
    if asked.promise is not None:
        here = engines.runtime_of(target).compiled is not None
        options = build_options(job.build, job.data, target, given.model) if here else None
        search = PromiseSearch(
            paths=job.paths,
            data=job.data,
            quantize=asked,
            given=given,
            improver=improver,
            target=target,
            # The FP32 engine of the costs would miss that gate; the search has `least_int8`.
            options=None if options is None else replace(options, require_int8=None),
            builds=job.stop_after is None,
            least_int8=job.build.options.require_int8 or 0.0,
            screen=screen,
        )
        return search.keep(asked.promise)
    return all_that_survives(given, improver)


def build(job: Job, target: str, source: Source, screen: Screen) -> Built:
    """Build the engine and its manifest."""
    paths, data, asked = job.paths, job.data, job.build
    converted = convert_to_float16(
        paths, data, asked, target, source.path, source.statistics, screen
    )
    passport = replace(source.passport, float32_operators=converted.float32_operators)
    screen.start(f"build      {paths.engine}, target {target}")
    options = build_options(asked, data, target, source.prepared)
    feeds = trial_feeds(options, data, source.prepared)
    method = job.calibrate.method
    calibrated = (
        calibrating(method, data, source.prepared, options, screen)
        if asked.implicit and options.calibration_cache is None
        else nullcontext(options)
    )
    with calibrated as settled:
        manifest = build_file(converted.source, paths.engine, settled, passport, feeds, screen)
    return Built(
        paths=paths,
        prepared=source.prepared,
        source=source.path,
        options=options,
        implicit=asked.implicit,
        manifest=manifest,
    )
