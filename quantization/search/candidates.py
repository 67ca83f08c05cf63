"""What a search has scored, at what cost, and the means to score more."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from graphs.macs import work
from graphs.view import GraphView
from quantization.improve.improved import Improved
from quantization.placement import Placement
from quantization.placement.fusion_groups import Group, fusion_groups, leave_float
from quantization.search.problem import Fit, Point, Refit, Search
from quantization.search.sensitivity import Sensitivity
from quantization.search.state import SearchState

__all__ = ["Candidates", "LateError", "SearchResult"]

_LEAST_SAVED = 0.2  # of what multiply-accumulates save on average


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchResult:
    """What a search ends with.

    Attributes:
        point: the chosen candidate.
        placement: of that candidate.
        improved: the network for it; ``improved.quantized(placement)`` is the INT8 model.
        met: whether the goal is kept.
        why: a sentence: how, or what stands in the way.
        fitted_without: groups that were in float when the network was improved, sorted.
        front: the candidates that no other beats in both cost and score, cheapest first.
        points: all that were scored, in order.
        sensitivities: of the groups; empty where no layer had to stay in float.
        cost_unit: "ms", or "share of MACs".
    """

    point: Point
    placement: Placement
    improved: Improved
    met: bool
    why: str
    fitted_without: tuple[str, ...]
    front: tuple[Point, ...]
    points: tuple[Point, ...]
    sensitivities: tuple[Sensitivity, ...]
    cost_unit: str


class LateError(Exception):
    """The time limit was reached in the middle of something long."""


class Candidates:
    """What was scored, and the means to score more."""

    def __init__(self, search: Search) -> None:
        self.placement, self.goal = search.placement, search.goal
        told = {name: array.shape for name, array in next(iter(search.samples), {}).items()}
        view = GraphView(search.improved.model, told)  # free axes count as in the samples
        self.groups = fusion_groups(view, search.placement)
        names = [group.name for group in self.groups]
        self.state = SearchState(search.state, search.key, names)
        self.points: dict[tuple[str, ...], Point] = {}
        self.earlier: tuple[Point, ...] = ()
        self.fitted_without: tuple[str, ...] = ()
        self.cost_unit = "share of MACs"
        self._search = search
        self._improved: Improved | None = search.improved
        self._fit: Fit | None = None
        # Monotonic: a clock that is set back must not lengthen a search.
        self._deadline = None if search.limit_s is None else time.monotonic() + search.limit_s
        self._macs = {n.name: work(view, n) for n in view.nodes}
        # 1 where a network has no multiply-accumulates: shares of it are 0, not an error.
        self._total = sum(self._macs.values()) or 1
        self._costs = {group.name: group.macs / self._total for group in self.groups}

    def price(self) -> None:
        """Take costs from an earlier run, from the caller, or measure them.

        Measured times of small layers are mostly noise, and one that seems to save nothing would
        stay in float for nothing: each counts as a fifth of what its MACs would save on average.
        """
        known = self.state.saved_ms
        if known is None:
            given = self._search.saved_ms
            known = given() if callable(given) else given
            if known is None:
                return
            self.state.add_saved_ms(known)
        self.cost_unit = "ms"
        least = _LEAST_SAVED * sum(max(0.0, saved) for saved in known.values()) / self._total
        self._costs = {
            group.name: max(sum(known.get(n, 0.0) for n in group.nodes), least * group.macs)
            for group in self.groups
        }

    def cost(self, group: Group) -> float:
        """What leaving a group in float gives back."""
        return self._costs[group.name]

    def in_time(self) -> bool:
        """Whether the time limit leaves room for another run."""
        return self._deadline is None or time.monotonic() < self._deadline

    def keep_time(self, done: int, total: int) -> None:
        """For long work to call between its steps.

        Raises:
            LateError: the time limit is reached.
        """
        if not self.in_time():
            raise LateError(f"after {done} of {total} steps")

    @property
    def improved(self) -> Improved:
        """The network; one that is fitted again is made when it is first asked for.

        Raises:
            LateError: the time limit was reached before.
        """
        if self._improved is None:
            assert self._fit is not None
            self._improved = self._fit(self.keep_time)
        return self._improved

    def fitted(self, released: Sequence[Group], refit: Refit) -> Candidates:
        """Candidates of the same groups, of the network as improved for one of them."""
        # A shallow copy: groups, costs, deadline and the state on disk are one for all fits.
        tried = copy.copy(self)
        tried._improved, tried._fit = None, functools.partial(refit, self.without(released))
        tried.earlier, tried.points = (*self.earlier, *self.points.values()), {}
        tried.fitted_without = tuple(sorted(group.name for group in released))
        return tried

    def meets(self, point: Point) -> bool:
        """Whether a candidate keeps the promise."""
        return self.goal.kept(point.score)

    def allowed(self, point: Point) -> bool:
        """Whether a candidate keeps the promise with enough of the network in INT8."""
        return self.meets(point) and self.within(point)

    def within(self, point: Point) -> bool:
        """Whether enough of the network is in INT8; what has no INT8 at all is no INT8 model."""
        return point.int8_share >= self._search.least_int8 and len(point.released) < len(
            self.groups
        )

    def point(self, released: Sequence[Group]) -> Point:
        """Score a mixed-precision candidate, once."""
        # Sorted, since a candidate is a set: two orders of it must not be scored twice.
        names = tuple(sorted(group.name for group in released))
        if names not in self.points:
            known = self.state.score(names, self.fitted_without)
            if known is None:
                known = self._search.score(self.improved.quantized(self.without(released)))
                self.state.add_score(names, self.fitted_without, known)
            kept = self.without(released).int8_nodes
            self.points[names] = Point(
                released=names,
                cost=sum(self.cost(group) for group in released),
                score=known,
                int8_share=sum(self._macs.get(name, 0) for name in kept) / self._total,
            )
            if self._search.report is not None:
                self._search.report(self.points[names])
        return self.points[names]

    def named(self, names: Collection[str]) -> list[Group]:
        """The groups of these names, in graph order."""
        return [group for group in self.groups if group.name in names]

    def without(self, released: Sequence[Group]) -> Placement:
        """The placement without some groups."""
        why = f"the search needs it for {self.goal}"
        return leave_float(self.placement, released, why=why)

    def result(self, point: Point, ranked: tuple[Sensitivity, ...], why: str) -> SearchResult:
        """The end of a search."""
        placement = self.without(self.named(point.released))
        points = (*self.earlier, *self.points.values())
        return SearchResult(
            point=point,
            placement=placement,
            improved=self.improved.leaving(placement),
            met=self.meets(point),
            why=why,
            fitted_without=self.fitted_without,
            front=_front(points),
            points=points,
            sensitivities=ranked,
            cost_unit=self.cost_unit,
        )


def _front(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points that none beats in both cost and score, cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.score, len(p.released))):
        if not front or point.score > front[-1].score:
            front.append(point)
    return tuple(front)
