"""From a promise on accuracy to the layers that stay in float, and to the recipe for it.

The improved INT8 model is tried first, then ranges by another method for the whole model, then
layers are left in float (quantization.search). Only the selection part of the samples is seen here.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

import calibrators
import engines
import quantization
from artefacts.errors import ArtefactError, MissingLibraryError
from artefacts.files import digest_of
from artefacts.libraries import require
from graphs.comparable import comparable_outputs
from graphs.identity import graph_hash
from graphs.view import GraphView
from pipeline.calibration import Calibrated
from pipeline.costs import measured_costs
from pipeline.improvement import Fitted, Fitting, Improver
from pipeline.job import Data, Paths, Quantize
from pipeline.judge import Judge, Scorer
from pipeline.mixed_precision import MixedPrecision
from pipeline.parts import SEED, Part
from pipeline.promise import Promise
from pipeline.ranking_samples import ranking_feeds
from pipeline.samples import judging_parts
from pipeline.screen import Screen
from quantization.improve.improved import Improved, as_calibrated
from quantization.improve.methods import NOTHING, Methods
from quantization.measure.execution import Arrays, Load, load_int8_quickly, load_onnxruntime
from quantization.measure.fidelity import compare, run_all
from quantization.search.front import found_of, pareto_plot, point_text
from quantization.search.recipe import Recipe
from quantization.search.search import Search, SearchResult, search
from quantization.search.splits import check_disjoint

__all__ = ["PromiseSearch"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Start:
    """Where the search for layers begins.

    Attributes:
        given: the network, calibrated by the method that was chosen.
        improved: from it.
        fitted_to: samples that it was improved on; None where it was not.
    """

    given: Calibrated
    improved: Improved
    fitted_to: int | None

    @property
    def int8(self) -> onnx.ModelProto:
        """With everything in INT8 that may be."""
        return self.improved.quantized(self.given.placement)


@dataclass(frozen=True, kw_only=True, eq=False)
class PromiseSearch:
    """The search for a mixed precision that keeps a promise.

    Attributes:
        paths: where its files lie.
        data: the samples.
        quantize: what was asked for.
        given: the calibrated network, with everything in INT8 that may be.
        improver: of it.
        target: that it is for.
        options: of a build for a target that runs on the machine that builds; else None.
        builds: whether the engine is built here; else candidates are scored as they are written.
        least_int8: share of the multiply-accumulates that must stay in INT8.
        screen: where everything is printed.
    """

    paths: Paths
    data: Data
    quantize: Quantize
    given: Calibrated
    improver: Improver
    target: str
    options: engines.BuildOptions | None
    builds: bool
    least_int8: float
    screen: Screen

    def keep(self, promise: Promise) -> MixedPrecision:
        """Improve, then leave as little as possible in float so that the promise is kept.

        Judged by the selection part.

        Raises:
            DataError: too few samples, some that were calibrated with, or a model that is near
                chance on them: that is known before the improvement, which takes minutes.
        """
        selection, judge = self._judge(promise)
        fitted = self.improver.improve(self.given)
        limit_s = self.quantize.search_time_s
        deadline = None if limit_s is None else time.monotonic() + limit_s
        start = self._start(fitted)
        score = Scorer(judge, self._computed_by())
        # Feeds to rank by cost two passes over the selection: only where the goal is missed.
        missed = not judge.goal.kept(score(start.int8))
        feeds = ranking_feeds(self.given, start.int8, selection) if missed else []
        in_time = deadline is None or time.monotonic() < deadline
        if fitted is not None and missed and in_time:
            start = self._other_method(start, score, feeds)
        result = self._search(start, judge, score, feeds, deadline)
        self.screen.add(
            f"{'kept' if result.met else 'not kept'} on the selection part: {result.why}"
        )
        self._recipe(start, result, judge).save(self.paths.beside(".recipe.yaml"))
        self._plot(result, judge)
        return MixedPrecision(
            placement=result.placement,
            improved=result.improved,
            calibrator=start.given.method,
            fitted_to=start.fitted_to,
            obstacle="" if result.met else result.why,
            promise=engines.PromiseRecord(
                flag=str(promise),
                kept_on_selection=result.met,
                how=result.why,
                selection_samples=len(selection),
                released=result.point.released,
                cost=result.point.cost,
                cost_unit=result.cost_unit,
                calibrator=start.given.method,
            ),
        )

    def _judge(self, promise: Promise) -> tuple[Part, Judge]:
        """The selection part, and what judges by it; no sample has two roles."""
        selection, test = judging_parts(self.data, self.given.model)
        check_disjoint(
            {
                "calibration": self.given.digests,
                "selection": [sample.digest for sample in selection],
                "test": [sample.digest for sample in test],
            }
        )
        selection.keep()
        judge = Judge(self.data, self.given.model, promise, selection)
        self.screen.add(
            f"target {promise}: {len(selection)} samples select, {len(test)} others verify"
        )
        if promise.kind == "sqnr":
            self.screen.add("each candidate is scored by its lower 95 % bound")
        return selection, judge

    def _start(self, fitted: Fitted | None) -> _Start:
        if fitted is None:
            plain = as_calibrated(self.given.model, self.given.ranges)
            return _Start(given=self.given, improved=plain, fitted_to=None)
        return _Start(given=self.given, improved=fitted.network, fitted_to=fitted.samples)

    def _computed_by(self) -> Load:
        """What computes a candidate: the target itself where it runs here."""
        compiled, options = engines.runtime_of(self.target).compiled, self.options
        if compiled is None or options is None or not self.builds:
            self.screen.add(
                "scored as the INT8 graph is written, since the target does not run here: its "
                "engine may differ by rounding, and is measured where it runs"
            )
            return load_int8_quickly
        return lambda model: compiled(model, options)

    def _other_method(self, start: _Start, score: Scorer, feeds: Sequence[Arrays]) -> _Start:
        """Ranges by another method for the whole model, where they are better on the selection."""
        model, placement = self.given.model, self.given.placement
        statistics = calibrators.Statistics.load(self.given.statistics)
        judged = comparable_outputs(GraphView(model))
        exact = run_all(load_onnxruntime(model, outputs=judged), feeds)

        def error(ranges: calibrators.Ranges) -> float:
            int8 = quantization.insert_qdq(
                model, placement, quantization.unify_ranges(ranges, placement)
            )
            return -compare(load_int8_quickly(int8, outputs=judged), feeds, exact).sqnr_db

        choice = calibrators.choose_method(statistics, error, judges=())
        levels = ", ".join(f"{method} {-value:.1f}" for method, value in choice.errors.items())
        self.screen.add(f"SQNR over the ranking samples, by calibration method, dB: {levels}")
        method = choice.ranges.method
        if method == self.given.method:
            return start
        ranges = quantization.unify_ranges(choice.ranges, placement)
        others = dataclasses.replace(self.given, ranges=ranges, method=method)
        fitted = self.improver.improve(others)
        if fitted is None:
            return start
        other = _Start(given=others, improved=fitted.network, fitted_to=fitted.samples)
        before, after = (score(each.int8) for each in (start, other))
        if after <= before:
            return start
        self.screen.add(f"ranges by {method}: score {before:.4g} → {after:.4g}")
        return other

    def _search(
        self,
        start: _Start,
        judge: Judge,
        score: Scorer,
        feeds: Sequence[Arrays],
        deadline: float | None,
    ) -> SearchResult:
        """The search, going on from the state of the same one."""
        goal, state = judge.goal, self.paths.beside(".search.json")
        methods = start.improved.methods
        fitting = Fitting(
            improver=self.improver,
            given=start.given,
            methods=Methods() if methods == NOTHING else methods,
        )
        fits = start.fitted_to is not None

        def go() -> SearchResult:
            left = None if deadline is None else max(deadline - time.monotonic(), 1e-3)
            with self.screen.bar("side runs") as progress:
                return search(
                    Search(
                        reference=self.given.model,
                        improved=start.improved,
                        placement=self.given.placement,
                        samples=feeds,
                        score=score,
                        goal=goal,
                        saved_ms=self._costs(start),
                        least_int8=self.least_int8,
                        refit=fitting.refit if fits else None,
                        unfitted=fitting.unfitted if fits else None,
                        limit_s=left,
                        state=state,
                        state_key=judge.digest,
                        load_quantized=load_int8_quickly,
                        report=lambda point: self.screen.add(f"  {point_text(point, goal)}"),
                        progress=progress,
                    )
                )

        try:
            return go()
        except ArtefactError:
            if not state.is_file():
                raise
            # An output of another search, which this one replaces.
            self.screen.add(f"{state} belongs to another search; starting anew")
            state.unlink()
        return go()

    def _costs(self, start: _Start) -> Callable[[], Mapping[str, float] | None]:
        def costs() -> Mapping[str, float] | None:
            if self.options is None:
                self.screen.add(
                    f"costs: multiply-accumulates; layers are not timed on target {self.target}"
                )
                return None
            return measured_costs(self.options, self.data, self.given, start.int8, self.screen)

        return costs

    def _recipe(self, start: _Start, result: SearchResult, judge: Judge) -> Recipe:
        """What makes the same model again without searching."""
        return Recipe(
            graph_hash=graph_hash(self.given.model),
            profile=result.placement.profile,
            exclude=self.quantize.exclude,
            released=result.point.released,
            calibrator=start.given.method,
            methods=None if result.improved.methods == NOTHING else result.improved.methods,
            fitted_without=result.fitted_without,
            improvement_samples=self.improver.count(self.given),
            attention=self.quantize.attention,
            weights=self.quantize.weights,
            unsigned=self.quantize.unsigned,
            held_out=self.data.holds_out,
            seed=SEED,
            samples_digest=digest_of(self.given.digests),
            found=found_of(result, judge.goal),
        )

    def _plot(self, result: SearchResult, judge: Judge) -> None:
        """The Pareto front, where there is something to see and a library to draw it."""
        if len(result.points) < 2:
            return
        try:
            require("matplotlib.figure", extra="report")
        except MissingLibraryError as err:
            self.screen.add(f"no plot of the front: {err}")
        else:
            pareto_plot(result, judge.goal, self.paths.beside(".pareto.png"))
