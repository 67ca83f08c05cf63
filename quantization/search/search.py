"""The cheapest mixed precision that keeps a promise on accuracy.

    1. Score the INT8 network. Where it meets the goal, nothing is given up.
    2. Measure the sensitivity of every fusion group (quantization.search.sensitivity).
    3. Rank the groups, most noise for the time given back first. Where weights and biases are
       fitted to the samples, fit them for heads of the ranking that give back 1 %, 2.5 %, 6 %, …
       of the time, until one meets the goal.
       Where nothing is fitted, find the shortest head by bisection, and that of a ranking by
       noise alone, which wins where one expensive group does the harm.
    4. Shrink: return groups to INT8, the most expensive first, and keep them there where the goal
       still holds; several at a time while many are in float. What was fitted is fitted again for
       what is left, and counts only if the goal holds then.

Fitting has to be part of the search: weights and biases make up for the errors of all the layers
before them, so that a network fitted in INT8 gains little from a layer put back into float, until
it is fitted to that. For the same reason sensitivities are taken where nothing is fitted.

Every step scores the whole network, so nothing rests on errors adding up; bisection takes log2(n)
of them. What was scored is what is returned. The ranking is NNCF's and AIMET's, the bisection and
the shrinking answer what they leave open: monotony is assumed to be fast and checked to be right.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx

from artefacts.errors import InputError
from quantization.improve.improve import Improved
from quantization.measure.execution import Arrays, Load, load_int8, load_onnxruntime
from quantization.placement import Placement
from quantization.placement.fusion_groups import Group
from quantization.search.candidates import (
    ROUNDING,
    Book,
    Fit,
    Goal,
    LateError,
    Point,
    Refit,
    Score,
    SearchResult,
)
from quantization.search.sensitivity import Sensitivity, sensitivities

__all__ = ["Goal", "Point", "Score", "SearchResult", "search"]


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
    refit: Refit | None = None,
    unfitted: Fit | None = None,
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
        refit: improves the network for a placement that leaves layers in float, the same one for
            the same placement; None keeps what was fitted with all layers in INT8.
        unfitted: makes the network without refitted weights and biases, for the sensitivities;
            None takes them from ``improved``.
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
    ranges, unsigned = improved.ranges, bool(placement.unsigned)
    book = Book(
        improved,
        placement,
        score,
        goal,
        report=report,
        least_int8=least_int8,
        deadline=None if limit_s is None else time.monotonic() + limit_s,
        state=state,
        state_key=f"{ranges.digest} {ranges.graph_hash} {goal.unit} {unsigned} {state_key}",
    )
    start = book.point([])
    if book.meets(start):
        return book.result(start, (), "no layer had to be left in float")
    book.price(saved_ms)
    everything = book.point(list(book.groups))
    ranked: tuple[Sensitivity, ...] = ()
    cheapest: Point | None = None
    if book.meets(everything):
        ranked = _ranked(book, reference, samples, load, load_quantized, progress, unfitted)
        found = _fitted(book, ranked, refit) if refit is not None else None
        best, cheapest = found or (book, _shrunk(book, _cheapest_head(book, ranked) or everything))
        if best.allowed(cheapest):
            return _finish(best, ranked, cheapest)
    within = [point for point in book.points.values() if book.within(point)] or [start]
    top = max(within, key=lambda point: (point.score, -point.cost))
    return book.result(top, ranked, _obstacle(book, everything, cheapest, ranked))


_FEW = 8  # groups that are returned to INT8 one by one
_FITS = 2  # for what shrinking leaves, and for what that allows (or for half of it)
_RUNGS = (0.01, 0.025, 0.06, 0.15, 0.35, 0.7)  # shares of all cost that fitted mixtures give back


def _ranked(
    book: Book,
    reference: onnx.ModelProto,
    samples: Sequence[Arrays],
    load: Load,
    load_quantized: Load,
    progress: Callable[[int, int], None] | None,
    unfitted: Fit | None,
) -> tuple[Sensitivity, ...]:
    """Sensitivities, most noise first, from the state where it has them; none where time ends."""
    known = book.state.sensitivities(book.groups)
    if known is None:

        def in_time(done: int, total: int) -> None:
            if progress is not None:
                progress(done, total)
            book.keep_time(done, total)

        try:
            known = sensitivities(
                reference,
                unfitted(book.keep_time) if unfitted is not None else book.improved,
                book.placement,
                samples,
                load=load,
                load_quantized=load_quantized,
                progress=in_time,
            )
        except LateError:
            return ()
        book.state.add_sensitivities(known)
    named = {group.name: group for group in book.groups}
    order = sorted(known, key=lambda s: (-s.noise, s.group.position))
    return tuple(dataclasses.replace(s, group=named[s.group.name]) for s in order)


def _by_price(book: Book, ranked: Sequence[Sensitivity]) -> list[Group]:
    """Most noise for the cost first; what costs nothing counts as a little."""
    smallest = min((book.cost(s.group) for s in ranked if book.cost(s.group) > 0), default=1.0)
    order = sorted(ranked, key=lambda s: -s.noise / max(book.cost(s.group), smallest * 1e-3))
    return [s.group for s in order]


def _fitted(book: Book, ranked: Sequence[Sensitivity], refit: Refit) -> tuple[Book, Point] | None:
    """A small mixture that meets the goal when fitted to it, and the book of that fit."""
    head = _fitted_head(book, ranked, refit)
    return None if head is None else _fitted_smaller(*head, refit)


def _fitted_head(
    book: Book, ranked: Sequence[Sensitivity], refit: Refit
) -> tuple[Book, Point] | None:
    """The first of a few heads of the ranking, cheapest first, that meets the goal when fitted."""
    order = _by_price(book, ranked)
    total = sum(book.cost(group) for group in order)
    last: list[Group] = []
    for share in _RUNGS:
        head = _affordable(book, order, share * total) or order[:1]
        if head == last or len(head) == len(book.groups):
            continue
        last = head
        found = _fitted_to(book, head, refit)
        if found is None or book.meets(found[1]):
            return found
        book.earlier = (*book.earlier, found[1])
    return None


def _fitted_to(book: Book, groups: Sequence[Group], refit: Refit) -> tuple[Book, Point] | None:
    """A mixture in the network as fitted to it; None where time ends before that is done."""
    if not book.in_time():
        return None
    fitted = book.fitted(groups, refit)
    try:
        point = fitted.point(groups)
        if fitted.meets(point):
            _ = fitted.improved  # where its score is from an earlier run
    except LateError:
        return None
    return fitted, point


def _affordable(book: Book, order: Sequence[Group], budget: float) -> list[Group]:
    """Groups in this order as far as they fit into the budget; what does not is left out."""
    found, spent = [], 0.0
    for group in order:
        if spent + book.cost(group) <= budget * (1 + ROUNDING):
            found.append(group)
            spent += book.cost(group)
    return found


def _cheapest_head(book: Book, ranked: Sequence[Sensitivity]) -> Point | None:
    """The cheaper of the shortest heads of both rankings that meet the goal."""
    orders = (_by_price(book, ranked), [s.group for s in ranked])
    found = [_shortest_head(book, order) for order in orders]
    return min((p for p in found if p is not None), key=lambda p: p.cost, default=None)


def _shortest_head(book: Book, order: Sequence[Group]) -> Point | None:
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


def _shrunk(book: Book, point: Point) -> Point:
    """Return groups to INT8 while the goal holds, the most expensive first.

    Several at a time while there are many (as delta debugging does), in the end each by itself.
    """
    groups = {group.name: group for group in book.groups}
    size = len(point.released) // 4 if len(point.released) > _FEW else 1
    while size:
        order = sorted(point.released, key=lambda name: (-book.cost(groups[name]), name))
        for start in range(0, len(order), size):
            if not book.in_time():
                return point
            back = set(order[start : start + size])
            fewer = book.point([groups[name] for name in point.released if name not in back])
            if book.meets(fewer):
                point = fewer
        size //= 2
    return point


def _fitted_smaller(book: Book, point: Point, refit: Refit) -> tuple[Book, Point]:
    """Shrink, and fit again for what is left; what does not keep the goal then was luck."""
    smaller = _shrunk(book, point)
    for fits_left in reversed(range(_FITS)):
        if smaller.released == point.released:
            break
        groups = book.named(smaller.released)
        found = _fitted_to(book, groups, refit)
        if found is None:
            break
        confirmed = book.meets(found[1])
        if confirmed:
            book, point = found
        else:
            book.earlier = (*book.earlier, found[1])
        if fits_left:
            smaller = _shrunk(book, point) if confirmed else _halfway(book, point, smaller)
    return book, point


def _halfway(book: Book, point: Point, smaller: Point) -> Point:
    """With the more expensive half of what shrinking returned to INT8."""
    returned = book.named({*point.released} - {*smaller.released})
    returned.sort(key=lambda group: (book.cost(group), group.name))
    kept = {*smaller.released, *(group.name for group in returned[: (len(returned) + 1) // 2])}
    return book.point(book.named(kept))


def _finish(book: Book, ranked: tuple[Sensitivity, ...], point: Point) -> SearchResult:
    why = (
        f"{len(point.released)} of {len(book.groups)} groups are left in float, "
        f"{100 * point.int8_share:.1f} % of the MACs stay in INT8{_late(book)}"
    )
    return book.result(point, ranked, why)


def _late(book: Book) -> str:
    return "" if book.in_time() else "; the time limit ended the search for fewer"


def _obstacle(
    book: Book, everything: Point, cheapest: Point | None, ranked: Sequence[Sensitivity]
) -> str:
    count = len(book.groups)
    if cheapest is None:
        return (
            f"with all {count} groups in float there is {book.goal.say(everything.score)}, "
            f"expected {book.goal}: out of reach of any mixture"
        )
    if not ranked:
        return f"the time limit ended the search before {book.goal}, with no layer ranked yet"
    worst = ", ".join(s.group.name for s in ranked[:3])
    return (
        f"{book.goal} needs {len(cheapest.released)} of {count} groups in float, which leaves "
        f"{cheapest.int8_share:.1%} of the MACs in INT8, expected {_wanted(book)}; most is lost "
        f"in: {worst}{_late(book)}"
    )


def _wanted(book: Book) -> str:
    return f"at least {book.least_int8:.1%}" if book.least_int8 else "some"
