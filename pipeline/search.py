"""From a promise on accuracy to the layers that stay in float, and to the recipe for it.

The improved INT8 model is tried first, then ranges by another method for the whole model, then
layers are given up (quantization.search). Only the selection part of the samples is seen here.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import calibrators
import engines
import quantization
from artefacts.decibels import noise_share
from artefacts.errors import ArtefactError, GateMissedError, InputError, MissingLibraryError
from artefacts.files import sha256_bytes
from artefacts.libraries import require
from graphs.comparable import comparable_outputs, with_outputs
from graphs.view import GraphView
from pipeline.building import build_options
from pipeline.costs import measured_costs
from pipeline.flags import Job
from pipeline.improvement import Fitting, improve, record
from pipeline.parts import SEED, Part
from pipeline.promise import Judge, Verdict, judging_parts, promise_of
from pipeline.screen import Screen
from quantization.improve.improve import VARIANTS, Improved
from quantization.improve.methods import NOTHING
from quantization.measure.execution import Arrays, Load, load_int8_quickly, load_onnxruntime
from quantization.measure.fidelity import compare, run_all
from quantization.search.front import found_of, pareto_plot, point_text
from quantization.search.recipe import Recipe
from quantization.search.search import SearchResult, search
from quantization.search.splits import check_disjoint, digest_of

__all__ = ["Mixture", "keep_promise", "refuse_if_missed", "refuse_searching"]

Costs = Callable[[], Mapping[str, float] | None]
NOT_GENERAL = (
    "it is kept on the samples that chose the model and not on those that test it; give more "
    "samples, or promise less"
)
RANKING_SAMPLES = 16  # for sensitivities and choice of method; every mixture is scored on all


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """What is quantized in the end.

    Attributes:
        placement: which layers.
        improved: the network, its ranges and weights.
        obstacle: why no mixture keeps the promise; empty where one does.
    """

    placement: quantization.Placement
    improved: Improved
    obstacle: str = ""


def keep_promise(
    job: Job,
    target: str,
    prepared: onnx.ModelProto,
    placement: quantization.Placement,
    ranges: calibrators.Ranges,
    passport: dict[str, Any],
    screen: Screen,
) -> Mixture:
    """Improve, then leave as little as possible in float so that the promise is kept.

    Judged by the selection part.

    Raises:
        DataError: too few samples, some that were calibrated with, or a model that is near chance
            on them: that is known before the improvement, which takes minutes.
    """
    promise = promise_of(job)
    assert promise is not None
    selection, test = judging_parts(job, prepared)
    _check_parts(passport, selection, test)
    selection.keep()
    judge = Judge(job, prepared, promise, selection)
    screen.add(
        f"promise {promise}: chosen by {len(selection)} samples, reported on {len(test)} others"
    )
    if promise.kind == "sqnr":
        screen.add("a mixture counts with the lower end of its 95 % interval")
    better = improve(job, prepared, placement, ranges, passport, screen)
    deadline = None if job.search_time is None else time.monotonic() + job.search_time
    start = better or Improved(model=prepared, ranges=ranges, weights={}, methods=NOTHING)
    calibrator, method_ranges = job.calibrator, ranges
    score = _Scorer(judge, _computed_by(job, target, prepared, screen))
    first = score(start.quantized(placement))
    missed = not judge.goal.kept(first)
    feeds = _telling(prepared, placement, start, selection) if missed else []
    in_time = deadline is None or time.monotonic() < deadline
    if better is not None and missed and in_time:
        calibrator, method_ranges, start = _other_method(
            job, prepared, placement, ranges, score, feeds, start, passport, screen
        )

    def costs() -> Mapping[str, float] | None:
        int8 = start.quantized(placement)
        return measured_costs(job, target, prepared, placement, int8, screen)

    fitting = Fitting(
        job=dataclasses.replace(job, calibrator=calibrator),
        prepared=prepared,
        placement=placement,
        ranges=method_ranges,
        methods=VARIANTS[0] if start.methods == NOTHING else start.methods,
        screen=screen,
    )
    result = _search(
        job,
        prepared,
        placement,
        start,
        judge,
        score,
        feeds,
        screen,
        saved_ms=costs,
        fitting=None if better is None else fitting,
        deadline=deadline,
    )
    screen.add(f"{'kept' if result.met else 'not kept'} on the selection part: {result.why}")
    _recipe(job, result, judge, calibrator, passport).save(job.beside(".recipe.yaml"))
    _plot(job, result, judge, screen)
    passport["promise"] = {
        "flag": str(promise),
        "kept_on_selection": result.met,
        "how": result.why,
        "selection_samples": len(selection),
        "released": list(result.point.released),
        "cost": result.point.cost,
        "cost_unit": result.cost_unit,
        "calibrator": calibrator,
    }
    if result.improved.methods != NOTHING:
        record(job, result.improved, passport)
    obstacle = "" if result.met else result.why
    return Mixture(placement=result.placement, improved=result.improved, obstacle=obstacle)


def _check_parts(passport: dict[str, Any], selection: Part, test: Part) -> None:
    """No sample in two roles, whatever the flags were."""
    check_disjoint(
        {
            "calibration": passport["calibration_samples"],
            "selection": [sample.digest for sample in selection],
            "test": [sample.digest for sample in test],
        }
    )


def _computed_by(job: Job, target: str, prepared: onnx.ModelProto, screen: Screen) -> Load:
    """What computes a candidate: the target itself where it runs here."""
    compiled = engines.runtime_of(target).compiled
    if compiled is None or job.stop_after is not None:
        screen.add(
            "scored as the INT8 graph is written, since the target does not run here: its engine "
            "may differ by rounding, and is measured where it runs"
        )
        return load_int8_quickly
    options = replace(build_options(job, target, prepared), require_int8=None)
    return lambda model: compiled(model, options)


class _Scorer:
    """Scores models on the selection part, each once."""

    def __init__(self, judge: Judge, load: Load) -> None:
        self._judge = judge
        self._load = load
        self._known: dict[str, float] = {}

    def __call__(self, model: onnx.ModelProto) -> float:
        digest = sha256_bytes(model.SerializeToString())
        if digest not in self._known:
            self._known[digest] = self._judge(self._load(model)).cautious
        return self._known[digest]


def _telling(
    prepared: onnx.ModelProto,
    placement: quantization.Placement,
    start: Improved,
    selection: Part,
) -> list[Arrays]:
    """Feeds to rank layers by: half of them those with most noise, half any others.

    A few samples often hold most of the noise, and a ranking that has not seen them is no guide.
    """
    judged = comparable_outputs(GraphView(prepared))
    float_run = load_onnxruntime(with_outputs(prepared, judged))
    int8_run = load_int8_quickly(with_outputs(start.quantized(placement), judged))
    inputs = calibrators.input_specs(prepared)
    feeds = [batch.inputs for batch in calibrators.batches(selection, 1, inputs=inputs)]
    noise = [-noise_share(compare(int8_run, [feed], [float_run(feed)]).sqnr_db) for feed in feeds]
    wanted = max(RANKING_SAMPLES // (calibrators.fixed_batch(inputs) or 1), 2)
    worst, others = np.split(np.argsort(noise, kind="stable"), [wanted // 2])
    step = max(len(others) // (wanted - len(worst)), 1)
    return [feeds[row] for row in sorted((*worst, *others[::step][: wanted - len(worst)]))]


def _other_method(
    job: Job,
    prepared: onnx.ModelProto,
    placement: quantization.Placement,
    ranges: calibrators.Ranges,
    score: _Scorer,
    feeds: Sequence[Arrays],
    start: Improved,
    passport: dict[str, Any],
    screen: Screen,
) -> tuple[str, calibrators.Ranges, Improved]:
    """Ranges by another method for the whole model, where they are better on the selection."""
    statistics = calibrators.Statistics.load(job.statistics or job.beside(".stats.npz"))
    judged = comparable_outputs(GraphView(prepared))
    exact = run_all(load_onnxruntime(with_outputs(prepared, judged)), feeds)

    def error(ranges: calibrators.Ranges) -> float:
        model = quantization.insert_qdq(
            prepared, placement, quantization.unify_ranges(ranges, placement)
        )
        return -compare(load_int8_quickly(with_outputs(model, judged)), feeds, exact).sqnr_db

    choice = calibrators.choose_method(statistics, error, judges=())
    levels = ", ".join(f"{method} {-value:.1f}" for method, value in choice.errors.items())
    screen.add(f"SQNR by calibration method, dB: {levels}")
    method = choice.ranges.method
    if method == job.calibrator:
        return method, ranges, start
    told: dict[str, Any] = {}
    others = quantization.unify_ranges(choice.ranges, placement)
    other = improve(
        dataclasses.replace(job, calibrator=method), prepared, placement, others, told, screen
    )
    before, after = (score(each.quantized(placement)) for each in (start, other or start))
    if other is None or after <= before:
        return job.calibrator, ranges, start
    screen.add(f"ranges by {method}: score {before:.4g} → {after:.4g}")
    passport.update(told, calibrator=method)
    return method, others, other


def _search(
    job: Job,
    prepared: onnx.ModelProto,
    placement: quantization.Placement,
    start: Improved,
    judge: Judge,
    score: _Scorer,
    feeds: Sequence[Arrays],
    screen: Screen,
    *,
    saved_ms: Costs,
    fitting: Fitting | None,
    deadline: float | None,
) -> SearchResult:
    """The search, going on from the state of the same one."""
    goal, state = judge.goal, job.beside(".search.json")

    def go() -> SearchResult:
        left = None if deadline is None else max(deadline - time.monotonic(), 1e-3)
        with screen.bar("side runs") as progress:
            return search(
                prepared,
                start,
                placement,
                feeds,
                score,
                goal,
                saved_ms=saved_ms,
                refit=None if fitting is None else fitting.refit,
                unfitted=None if fitting is None else fitting.unfitted,
                load_quantized=load_int8_quickly,
                least_int8=job.require_int8 or 0.0,
                limit_s=left,
                state=state,
                state_key=judge.digest,
                report=lambda point: screen.add(f"  {point_text(point, goal)}"),
                progress=progress,
            )

    try:
        return go()
    except ArtefactError:
        if not state.is_file():
            raise
        # An output of another search, which this one replaces.
        screen.add(f"{state} is of another search: searching afresh")
        state.unlink()
    return go()


def _recipe(
    job: Job, result: SearchResult, judge: Judge, calibrator: str, passport: Mapping[str, Any]
) -> Recipe:
    """What makes the same model again without searching."""
    methods = result.improved.methods
    return Recipe(
        graph_hash=passport["graph_hash"],
        profile=result.placement.profile,
        exclude=job.exclude,
        released=result.point.released,
        calibrator=calibrator,
        methods=None if methods == NOTHING else methods,
        fitted_without=result.fitted_without,
        improvement_samples=job.improve,
        weights=job.weights,
        unsigned=job.cpu_unsigned,
        held_out=job.holds_out,
        seed=SEED,
        samples_digest=digest_of(passport["calibration_samples"]),
        found=found_of(result, judge.goal),
    )


def _plot(job: Job, result: SearchResult, judge: Judge, screen: Screen) -> None:
    """The Pareto front, where there is something to see and a library to draw it."""
    if len(result.points) < 2:
        return
    try:
        require("matplotlib.figure", extra="report")
    except MissingLibraryError as err:
        screen.add(f"no plot of the front: {err}")
        return
    pareto_plot(result, judge.goal, job.beside(".pareto.png"))


def refuse_if_missed(
    job: Job, made: Path, obstacle: str, verdict: Verdict | None, gap: str = ""
) -> None:
    """End with exit code 1 where the promise is not kept; the files stay.

    Args:
        job: the flags.
        made: the engine, or the model for one.
        obstacle: why no candidate keeps the promise; empty where one does.
        verdict: the measured result.
        gap: how the engine differs from its graph, where rounding does not explain it.

    Raises:
        GateMissedError: what was found, and what stands in the way.
    """
    if verdict is None or (verdict.kept and not obstacle):
        return
    reason = obstacle or gap or NOT_GENERAL
    where = ", so it is kept there and missed on the samples that choose" if verdict.kept else ""
    raise GateMissedError(
        f"{promise_of(job)} is missed: the best found, {made}, has {verdict}{where}; {reason}"
    )


def refuse_searching(job: Job) -> None:
    """A model that is quantized already has no float network to go back to.

    Raises:
        InputError: a promise or recipe was given.
    """
    if job.searched:
        raise InputError(
            f"{job.promise or '--recipe'} with {job.onnx}, which is quantized already, expected "
            "the float model it was made from; give that one, or take the Q/DQ nodes out with "
            "python -m quantization strip"
        )
