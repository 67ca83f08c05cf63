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
from collections.abc import Sequence

from quantization.placement.fusion_groups import Group
from quantization.search.candidates import Book, LateError, SearchResult
from quantization.search.heads import affordable, by_price, cheapest_head, halfway, shrunk
from quantization.search.problem import Goal, Point, Refit, Search
from quantization.search.sensitivity import Sensitivity, sensitivities

__all__ = ["Goal", "Point", "Search", "SearchResult", "search"]

_FITS = 2  # for what shrinking leaves, and for what that allows (or for half of it)
_RUNGS = (0.01, 0.025, 0.06, 0.15, 0.35, 0.7)  # shares of all cost that fitted mixtures give back


def search(given: Search) -> SearchResult:
    """Leave as little as possible in float so that the score reaches the goal.

    Raises:
        ArtefactError: the state is of another search, or damaged.
    """
    book = Book(given)
    start = book.point([])
    if book.meets(start):
        return book.result(start, (), "no layer had to be left in float")
    book.price()
    everything = book.point(list(book.groups))
    ranked: tuple[Sensitivity, ...] = ()
    cheapest: Point | None = None
    if book.meets(everything):
        ranked = _ranked(given, book)
        found = _fitted(book, ranked, given.refit) if given.refit is not None else None
        best, cheapest = found or (book, shrunk(book, cheapest_head(book, ranked) or everything))
        if best.allowed(cheapest):
            return _finish(best, ranked, cheapest)
    within = [point for point in book.points.values() if book.within(point)] or [start]
    top = max(within, key=lambda point: (point.score, -point.cost))
    return book.result(top, ranked, _obstacle(given, book, everything, cheapest, ranked))


def _ranked(given: Search, book: Book) -> tuple[Sensitivity, ...]:
    """Sensitivities, most noise first, from the state where it has them; none where time ends."""
    known = book.state.sensitivities(book.groups)
    if known is None:

        def in_time(done: int, total: int) -> None:
            if given.progress is not None:
                given.progress(done, total)
            book.keep_time(done, total)

        try:
            improved = given.improved if given.unfitted is None else given.unfitted(book.keep_time)
            known = sensitivities(
                given.reference,
                improved,
                given.placement,
                given.samples,
                load_quantized=given.load_quantized,
                progress=in_time,
            )
        except LateError:
            return ()
        book.state.add_sensitivities(known)
    named = {group.name: group for group in book.groups}
    order = sorted(known, key=lambda s: (-s.noise, s.group.position))
    return tuple(dataclasses.replace(s, group=named[s.group.name]) for s in order)


def _fitted(book: Book, ranked: Sequence[Sensitivity], refit: Refit) -> tuple[Book, Point] | None:
    """A small mixture that meets the goal when fitted to it, and the book of that fit."""
    head = _fitted_head(book, ranked, refit)
    return None if head is None else _fitted_smaller(*head, refit)


def _fitted_head(
    book: Book, ranked: Sequence[Sensitivity], refit: Refit
) -> tuple[Book, Point] | None:
    """The first of a few heads of the ranking, cheapest first, that meets the goal when fitted."""
    order = by_price(book, ranked)
    total = sum(book.cost(group) for group in order)
    last: list[Group] = []
    for share in _RUNGS:
        head = affordable(book, order, share * total) or order[:1]
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


def _fitted_smaller(book: Book, point: Point, refit: Refit) -> tuple[Book, Point]:
    """Shrink, and fit again for what is left; what does not keep the goal then was luck."""
    smaller = shrunk(book, point)
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
            smaller = shrunk(book, point) if confirmed else halfway(book, point, smaller)
    return book, point


def _finish(book: Book, ranked: tuple[Sensitivity, ...], point: Point) -> SearchResult:
    why = (
        f"{len(point.released)} of {len(book.groups)} groups are left in float, "
        f"{100 * point.int8_share:.1f} % of the MACs stay in INT8{_late(book)}"
    )
    return book.result(point, ranked, why)


def _late(book: Book) -> str:
    return "" if book.in_time() else "; the time limit ended the search for fewer"


def _obstacle(
    given: Search,
    book: Book,
    everything: Point,
    cheapest: Point | None,
    ranked: Sequence[Sensitivity],
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
        f"{cheapest.int8_share:.1%} of the MACs in INT8, expected "
        f"{_wanted(given.least_int8)}; most is lost in: {worst}{_late(book)}"
    )


def _wanted(least: float) -> str:
    return f"at least {least:.1%}" if least else "some"
