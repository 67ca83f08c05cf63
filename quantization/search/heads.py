"""Which groups to leave in float next: heads of a ranking, and what can go back to INT8."""

from __future__ import annotations

from collections.abc import Sequence

from quantization.placement.fusion_groups import Group
from quantization.search.candidates import Candidates
from quantization.search.problem import ROUNDING, Point
from quantization.search.sensitivity import Sensitivity

__all__ = ["affordable", "by_price", "cheapest_head", "halfway", "shrunk"]

_FEW = 8  # groups that are returned to INT8 one by one


def by_price(tried: Candidates, ranked: Sequence[Sensitivity]) -> list[Group]:
    """Most noise for the cost first; what costs nothing counts as a little."""
    # A group that costs nothing would divide by 0; a thousandth of the least keeps it first.
    smallest = min((tried.cost(s.group) for s in ranked if tried.cost(s.group) > 0), default=1.0)
    order = sorted(ranked, key=lambda s: -s.noise / max(tried.cost(s.group), smallest * 1e-3))
    return [s.group for s in order]


def affordable(tried: Candidates, order: Sequence[Group], budget: float) -> list[Group]:
    """Groups in this order as far as they fit into the budget; what does not is left out."""
    found, spent = [], 0.0
    for group in order:
        # The budget is a share of the sum of these costs, which rounds otherwise than its parts.
        if spent + tried.cost(group) <= budget * (1 + ROUNDING):
            found.append(group)
            spent += tried.cost(group)
    return found


def cheapest_head(tried: Candidates, ranked: Sequence[Sensitivity]) -> Point | None:
    """The cheaper of the shortest heads of both rankings that meet the goal."""
    # By noise alone where one expensive group does all the harm: its price ranks it late.
    orders = (by_price(tried, ranked), [s.group for s in ranked])
    found = [_shortest_head(tried, order) for order in orders]
    return min((p for p in found if p is not None), key=lambda p: p.cost, default=None)


def _shortest_head(tried: Candidates, order: Sequence[Group]) -> Point | None:
    """Bisect for the smallest k with the first k groups in float meeting the goal."""
    low, high = 0, len(order)  # low does not meet the goal, high is thought to
    best: Point | None = None
    while high - low > 1 and tried.in_time():
        middle = (low + high) // 2
        point = tried.point(order[:middle])
        if tried.meets(point):
            best, high = point, middle
        else:
            low = middle
    return best


def shrunk(tried: Candidates, point: Point) -> Point:
    """Return groups to INT8 while the goal holds, the most expensive first.

    Several at a time while there are many (as delta debugging does), in the end each by itself.
    """
    groups = {group.name: group for group in tried.groups}
    size = len(point.released) // 4 if len(point.released) > _FEW else 1
    while size:
        # The most expensive first: what returns early saves most, and takes the slack of the goal.
        order = sorted(point.released, key=lambda name: (-tried.cost(groups[name]), name))
        for start in range(0, len(order), size):
            if not tried.in_time():
                return point
            back = set(order[start : start + size])
            fewer = tried.point([groups[name] for name in point.released if name not in back])
            if tried.meets(fewer):
                point = fewer
        size //= 2
    return point


def halfway(tried: Candidates, point: Point, smaller: Point) -> Point:
    """With the more expensive half of what shrinking returned to INT8."""
    returned = tried.named({*point.released} - {*smaller.released})
    returned.sort(key=lambda group: (tried.cost(group), group.name))
    kept = {*smaller.released, *(group.name for group in returned[: (len(returned) + 1) // 2])}
    return tried.point(tried.named(kept))
