"""The cheapest mixed precision that keeps a promise on accuracy.

    1. Score the INT8 network. Where it meets the goal, nothing is given up.
    2. Measure the sensitivity of every fusion group (quantization.sensitivity).
    3. Rank the groups, most accuracy won for the time given back first, and find by bisection the
       shortest head of the ranking that meets the goal in float. Do the same with a ranking by
       accuracy alone, which wins where one expensive group does the harm.
    4. Shrink: return each group to INT8, the most expensive first, and keep it there where the
       goal still holds.

Every step scores the whole network, so nothing rests on errors adding up; bisection takes log2(n)
of them. What was scored is what is returned. The ranking is NNCF's and AIMET's, the bisection and
the shrinking answer what they leave open: monotony is assumed to be fast and checked to be right.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from artefacts.errors import InputError
from quantization.execution import Arrays, Load, load_int8, load_onnxruntime
from quantization.fusion_groups import Group, fusion_groups, leave_float
from quantization.graph_view import WEIGHTED_OPS, GraphView
from quantization.improve import Improved
from quantization.placement import Placement
from quantization.search_state import SearchState
from quantization.sensitivity import Sensitivity, sensitivities

__all__ = ["Goal", "Point", "SearchResult", "search"]

Score = Callable[[onnx.ModelProto], float]
"""A Q/DQ model in, its score out; larger is better."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The promise.

    Attributes:
        minimum: smallest score that keeps it.
        unit: of the score, e.g. "dB SQNR", "points of top1".
        drop: the score is a drop with its sign turned, and is said as one.
    """

    minimum: float
    unit: str
    drop: bool = False

    def __str__(self) -> str:
        return self.say(self.minimum)

    def say(self, score: float) -> str:
        """A score in words, e.g. ``21.5 dB SQNR``, ``a drop of 0.4 points of top1``."""
        if self.drop:
            return f"a drop of {0.0 - score:.4g} {self.unit}"
        return f"{score:.4g} {self.unit}"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mixture that was scored.

    Attributes:
        released: names of the groups in float, sorted.
        cost: what they give back, in the unit of the costs.
        score: of the whole network.
        int8_share: share of the multiply-accumulates that stay in INT8, 0 to 1.
    """

    released: tuple[str, ...]
    cost: float
    score: float
    int8_share: float


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchResult:
    """What a search ends with.

    Attributes:
        point: the chosen mixture.
        placement: of that mixture.
        improved: the network for it; ``improved.quantized(placement)`` is the INT8 model.
        met: whether the goal is kept.
        why: a sentence: how, or what stands in the way.
        front: the mixtures that no other beats in both cost and score, cheapest first.
        points: all that were scored, in order.
        sensitivities: of the groups; empty where nothing had to be given up.
        cost_unit: "ms", or "share of MACs".
    """

    point: Point
    placement: Placement
    improved: Improved
    met: bool
    why: str
    front: tuple[Point, ...]
    points: tuple[Point, ...]
    sensitivities: tuple[Sensitivity, ...]
    cost_unit: str


def search(
    reference: onnx.ModelProto,
    improved: Improved,
    placement: Placement,
    samples: Sequence[Arrays],
    score: Score,
    goal: Goal,
    *,
    saved_ms: Mapping[str, float] | Callable[[], Mapping[str, float] | None] | None = None,
    least_int8: float = 0.0,
    unsigned: bool = False,
    limit_s: float | None = None,
    state: Path | None = None,
    state_key: str = "",
    load: Load = load_onnxruntime,
    load_quantized: Load = load_int8,
    report: Callable[[Point], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SearchResult:
    """Leave as little as possible in float so that ``score`` reaches the goal.

    Args:
        reference: the prepared float network.
        improved: the network and everything INT8 needs, from ``improve`` or ``improve_layers``.
        placement: of it, with every layer that may be INT8 in INT8.
        samples: feeds of the selection part, one sample each, for the sensitivities.
        score: judges a Q/DQ model on the selection part.
        goal: what to reach.
        saved_ms: layer name → milliseconds that INT8 saves on the target, or what measures them
            once a layer must be given up; None counts multiply-accumulates. Groups that are
            missing save nothing.
        least_int8: share of the multiply-accumulates that must stay in INT8, 0 to 1.
        unsigned: score with uint8 where values are never negative, as ``insert_qdq`` has it.
        limit_s: stop with the best found after so many seconds.
        state: a file to continue from and to keep up to date.
        state_key: what else the scores depend on, e.g. digests of the samples.
        load: runs float models.
        load_quantized: runs Q/DQ models.
        report: called with every mixture scored.
        progress: called with sensitivities done and their number.

    Raises:
        InputError: the time limit is not positive.
        ArtefactError: the state is of another search, or damaged.
    """
    if limit_s is not None and limit_s <= 0:
        raise InputError(f"search time is {limit_s} s, expected more than 0; give it time")
    book = _Book(improved, placement, score, goal, report)
    book.least_int8, book.unsigned = least_int8, unsigned
    key = (
        f"{improved.ranges.digest} {improved.ranges.graph_hash} {goal.unit} {unsigned} {state_key}"
    )
    book.state = SearchState(state, key, [group.name for group in book.groups])
    book.deadline = None if limit_s is None else time.monotonic() + limit_s

    start = book.point([])
    if book.meets(start):
        return book.result(start, (), "no layer had to be left in float")
    book.price(saved_ms)
    everything = book.point(list(book.groups))
    ranked: tuple[Sensitivity, ...] = ()
    cheapest: Point | None = None
    if book.meets(everything):
        ranked = _ranked(book, reference, samples, load, load_quantized, progress)
        head = _cheapest_head(book, ranked) if ranked else None
        cheapest = _shrunk(book, head or everything)
        if book.allowed(cheapest):
            return _finish(book, ranked, cheapest)
    within = [p for p in book.points.values() if p.int8_share >= least_int8] or [start]
    top = max(within, key=lambda point: (point.score, -point.cost))
    return book.result(top, ranked, _obstacle(book, everything, cheapest, ranked))


class _LateError(Exception):
    """The time limit was reached among the sensitivities."""


class _Book:
    """What was scored, and the means to score more."""

    deadline: float | None
    state: SearchState
    least_int8: float
    unsigned: bool

    def __init__(
        self,
        improved: Improved,
        placement: Placement,
        score: Score,
        goal: Goal,
        report: Callable[[Point], None] | None,
    ) -> None:
        view = GraphView(improved.model)
        self.improved, self.placement, self.goal = improved, placement, goal
        self.groups = fusion_groups(view, placement)
        self.points: dict[tuple[str, ...], Point] = {}
        self._score, self._report = score, report
        self._macs = {n.name: view.macs(n) for n in view.nodes if n.op_type in WEIGHTED_OPS}
        self._total = sum(self._macs.values()) or 1
        self._saved_ms: Mapping[str, float] | None = None
        self.cost_unit = "share of MACs"

    def price(
        self, saved_ms: Mapping[str, float] | Callable[[], Mapping[str, float] | None] | None
    ) -> None:
        """Take costs from an earlier run, from the caller, or measure them."""
        known = self.state.saved_ms
        if known is None:
            known = saved_ms() if callable(saved_ms) else saved_ms
            if known is not None:
                self.state.add_saved_ms(known)
        self._saved_ms = known
        self.cost_unit = "share of MACs" if known is None else "ms"

    def cost(self, group: Group) -> float:
        """What leaving a group in float gives back; never less than 0."""
        if self._saved_ms is not None:
            return max(0.0, sum(self._saved_ms.get(name, 0.0) for name in group.nodes))
        return group.macs / self._total

    def in_time(self) -> bool:
        """Whether the time limit leaves room for another run."""
        return self.deadline is None or time.monotonic() < self.deadline

    def meets(self, point: Point) -> bool:
        """Whether a mixture keeps the promise."""
        return point.score >= self.goal.minimum

    def allowed(self, point: Point) -> bool:
        """Whether a mixture keeps the promise with enough of the network in INT8."""
        return self.meets(point) and point.int8_share >= self.least_int8

    def point(self, released: Sequence[Group]) -> Point:
        """Score a mixture, once."""
        names = tuple(sorted(group.name for group in released))
        if names not in self.points:
            known = self.state.score(names)
            if known is None:
                known = self._score(
                    self.improved.quantized(self.mixture(released), unsigned=self.unsigned)
                )
                self.state.add_score(names, known)
            kept = self.mixture(released).int8_nodes
            self.points[names] = Point(
                released=names,
                cost=sum(self.cost(group) for group in released),
                score=known,
                int8_share=sum(self._macs.get(name, 0) for name in kept) / self._total,
            )
            if self._report is not None:
                self._report(self.points[names])
        return self.points[names]

    def mixture(self, released: Sequence[Group]) -> Placement:
        """The placement without some groups."""
        why = f"the search needs it for {self.goal}"
        return leave_float(self.placement, released, why=why)

    def result(self, point: Point, ranked: tuple[Sensitivity, ...], why: str) -> SearchResult:
        """The end of a search."""
        released = [group for group in self.groups if group.name in point.released]
        placement = self.mixture(released)
        return SearchResult(
            point=point,
            placement=placement,
            improved=self.improved.leaving(placement),
            met=self.meets(point),
            why=why,
            front=_front(list(self.points.values())),
            points=tuple(self.points.values()),
            sensitivities=ranked,
            cost_unit=self.cost_unit,
        )


def _ranked(
    book: _Book,
    reference: onnx.ModelProto,
    samples: Sequence[Arrays],
    load: Load,
    load_quantized: Load,
    progress: Callable[[int, int], None] | None,
) -> tuple[Sensitivity, ...]:
    """Sensitivities, from the state where it has them; none where time runs out."""
    known = book.state.sensitivities(book.groups)
    if known is None:

        def in_time(done: int, total: int) -> None:
            if progress is not None:
                progress(done, total)
            if not book.in_time():
                raise _LateError

        try:
            known = sensitivities(
                reference,
                book.improved,
                book.placement,
                samples,
                load=load,
                load_quantized=load_quantized,
                progress=in_time,
            )
        except _LateError:
            return ()
        book.state.add_sensitivities(known)
    return known


def _cheapest_head(book: _Book, ranked: Sequence[Sensitivity]) -> Point | None:
    """The cheaper of the shortest heads of both rankings that meet the goal."""
    smallest = min((book.cost(s.group) for s in ranked if book.cost(s.group) > 0), default=1.0)
    by_price = sorted(ranked, key=lambda s: -s.gained / max(book.cost(s.group), smallest * 1e-3))
    found = [_shortest_head(book, [s.group for s in order]) for order in (by_price, ranked)]
    return min((p for p in found if p is not None), key=lambda p: p.cost, default=None)


def _shortest_head(book: _Book, order: Sequence[Group]) -> Point | None:
    """Bisect for the smallest k with the first k groups in float meeting the goal."""
    low, high = 0, len(order)  # low does not meet the goal, high is thought to
    best: Point | None = None
    while high - low > 1 and book.in_time():
        middle = (low + high) // 2
        point = book.point(order[:middle])
        if book.meets(point):
            best, high = point, middle
        else:
            low = middle
    return best


def _shrunk(book: _Book, point: Point) -> Point:
    """Return groups to INT8 while the goal holds, the most expensive first."""
    groups = {group.name: group for group in book.groups}
    order = sorted(point.released, key=lambda name: (-book.cost(groups[name]), name))
    for name in order:
        if not book.in_time():
            break
        fewer = book.point([groups[other] for other in point.released if other != name])
        if book.meets(fewer):
            point = fewer
    return point


def _finish(book: _Book, ranked: tuple[Sensitivity, ...], point: Point) -> SearchResult:
    why = (
        f"{len(point.released)} of {len(book.groups)} groups are left in float, "
        f"{100 * point.int8_share:.1f} % of the MACs stay in INT8{_late(book)}"
    )
    return book.result(point, ranked, why)


def _late(book: _Book) -> str:
    return "" if book.in_time() else "; the time limit ended the search for fewer"


def _obstacle(
    book: _Book, everything: Point, cheapest: Point | None, ranked: Sequence[Sensitivity]
) -> str:
    count = len(book.groups)
    if cheapest is None:
        return (
            f"with all {count} groups in float there is {book.goal.say(everything.score)}, "
            f"expected {book.goal}: out of reach of any mixture"
        )
    worst = ", ".join(s.group.name for s in ranked[:3]) or "not ranked yet"
    return (
        f"{book.goal} needs {len(cheapest.released)} of {count} groups in float, which leaves "
        f"{cheapest.int8_share:.1%} of the MACs in INT8, expected {book.least_int8:.1%}; most is "
        f"lost in: {worst}{_late(book)}"
    )


def _front(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points that none beats in both cost and score, cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.score, len(p.released))):
        if not front or point.score > front[-1].score:
            front.append(point)
    return tuple(front)
