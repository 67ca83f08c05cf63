"""The cheapest mixed precision that keeps a promise on accuracy.

    1. Score the INT8 network. Where it meets the goal, nothing is left in float.
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
from quantization.search.candidates import Candidates, LateError, SearchResult
from quantization.search.heads import affordable, by_price, cheapest_head, halfway, shrunk
from quantization.search.problem import Goal, Point, Refit, Search
from quantization.search.sensitivity import Sensitivity, sensitivities

__all__ = ["Goal", "Point", "Search", "SearchResult", "search"]

_FITS = 2  # for what shrinking leaves, and for what that allows (or for half of it)
_RUNGS = (0.01, 0.025, 0.06, 0.15, 0.35, 0.7)  # shares of all cost that fitted candidates give back


def search(given: Search) -> SearchResult:
    """Leave as little as possible in float so that the score reaches the goal.

    Raises:
        ArtefactError: the state is of another search, or damaged.
    """
    tried = Candidates(given)
    start = tried.point([])
    if tried.meets(start):
        return tried.result(start, (), "no layer had to be left in float")
    # Measured only now: costs take two builds, and a promise that INT8 keeps needs none.
    tried.price()
    # If not even this keeps the goal, no subset is worth the ranking, a run for each group.
    everything = tried.point(list(tried.groups))
    ranked: tuple[Sensitivity, ...] = ()
    cheapest: Point | None = None
    if tried.meets(everything):
        ranked = _ranked(given, tried)
        found = _fitted(tried, ranked, given.refit) if given.refit is not None else None
        best, cheapest = found or (tried, shrunk(tried, cheapest_head(tried, ranked) or everything))
        # `meets` found it, `allowed` also wants enough INT8: the promise without INT8 is no answer.
        if best.allowed(cheapest):
            return _finish(best, ranked, cheapest)
    within = [point for point in tried.points.values() if tried.within(point)] or [start]
    top = max(within, key=lambda point: (point.score, -point.cost))
    return tried.result(top, ranked, _obstacle(given, tried, everything, cheapest, ranked))


def _ranked(given: Search, tried: Candidates) -> tuple[Sensitivity, ...]:
    """Sensitivities, most noise first, from the state where it has them; none where time ends."""
    known = tried.state.sensitivities(tried.groups)
    if known is None:

        def in_time(done: int, total: int) -> None:
            if given.progress is not None:
                given.progress(done, total)
            tried.keep_time(done, total)

        try:
            improved = given.improved if given.unfitted is None else given.unfitted(tried.keep_time)
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
        tried.state.add_sensitivities(known)
    named = {group.name: group for group in tried.groups}
    # The position breaks ties, so that the same numbers always rank in the same order.
    order = sorted(known, key=lambda s: (-s.noise, s.group.position))
    return tuple(dataclasses.replace(s, group=named[s.group.name]) for s in order)


def _fitted(
    tried: Candidates, ranked: Sequence[Sensitivity], refit: Refit
) -> tuple[Candidates, Point] | None:
    """A small candidate that meets the goal when fitted to it, and the candidates of that fit."""
    head = _fitted_head(tried, ranked, refit)
    return None if head is None else _fitted_smaller(*head, refit)


def _fitted_head(
    tried: Candidates, ranked: Sequence[Sensitivity], refit: Refit
) -> tuple[Candidates, Point] | None:
    """The first of a few heads of the ranking, cheapest first, that meets the goal when fitted."""
    order = by_price(tried, ranked)
    total = sum(tried.cost(group) for group in order)
    last: list[Group] = []
    for share in _RUNGS:
        head = affordable(tried, order, share * total) or order[:1]
        # A fit takes minutes: none twice for one set, and none for the float network itself.
        if head == last or len(head) == len(tried.groups):
            continue
        last = head
        found = _fitted_to(tried, head, refit)
        if found is None or tried.meets(found[1]):
            return found
        # A miss belongs to the front all the same: it was scored on the whole network.
        tried.earlier = (*tried.earlier, found[1])
    return None


def _fitted_to(
    tried: Candidates, groups: Sequence[Group], refit: Refit
) -> tuple[Candidates, Point] | None:
    """A candidate in the network as fitted to it; None where time ends before that is done."""
    if not tried.in_time():
        return None
    fitted = tried.fitted(groups, refit)
    try:
        point = fitted.point(groups)
        if fitted.meets(point):
            _ = fitted.improved  # where its score is from an earlier run
    except LateError:
        return None
    return fitted, point


def _fitted_smaller(tried: Candidates, point: Point, refit: Refit) -> tuple[Candidates, Point]:
    """Shrink, and fit again for what is left; what does not keep the goal then was luck."""
    smaller = shrunk(tried, point)
    for fits_left in reversed(range(_FITS)):
        if smaller.released == point.released:
            break
        groups = tried.named(smaller.released)
        found = _fitted_to(tried, groups, refit)
        if found is None:
            break
        confirmed = tried.meets(found[1])
        if confirmed:
            tried, point = found
        else:
            tried.earlier = (*tried.earlier, found[1])
        # Not confirmed: half of what was returned goes back to float, and is fitted in its turn.
        if fits_left:
            smaller = shrunk(tried, point) if confirmed else halfway(tried, point, smaller)
    return tried, point


def _finish(tried: Candidates, ranked: tuple[Sensitivity, ...], point: Point) -> SearchResult:
    why = (
        f"{len(point.released)} of {len(tried.groups)} groups are left in float, "
        f"{100 * point.int8_share:.1f} % of the MACs stay in INT8{_late(tried)}"
    )
    return tried.result(point, ranked, why)


def _late(tried: Candidates) -> str:
    return "" if tried.in_time() else "; the time limit ended the search for fewer"


def _obstacle(
    given: Search,
    tried: Candidates,
    everything: Point,
    cheapest: Point | None,
    ranked: Sequence[Sensitivity],
) -> str:
    count = len(tried.groups)
    if cheapest is None:
        return (
            f"with all {count} groups in float there is {tried.goal.say(everything.score)}, "
            f"expected {tried.goal}: out of reach of any mixed precision"
        )
    if not ranked:
        return f"the time limit ended the search before {tried.goal}, with no layer ranked yet"
    worst = ", ".join(s.group.name for s in ranked[:3])
    return (
        f"{tried.goal} needs {len(cheapest.released)} of {count} groups in float, which leaves "
        f"{cheapest.int8_share:.1%} of the MACs in INT8, expected "
        f"{_wanted(given.least_int8)}; most is lost in: {worst}{_late(tried)}"
    )


def _wanted(least: float) -> str:
    return f"at least {least:.1%}" if least else "some"
