"""Which ranges moved, and how far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from calibrators import Ranges
from calibrators.commands import table

__all__ = ["Move", "moves", "table_of"]

NOTABLE = 0.01  # of a range: less is no more than another draw of the same samples


@dataclass(frozen=True, kw_only=True)
class Move:
    """One tensor's range as calibrated, before anything is improved.

    Attributes:
        tensor: its name, in the prepared graph.
        before: largest value that INT8 represented.
        after: that it represents now.
    """

    tensor: str
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """Above 1 where the range grew."""
        return self.after / self.before

    @property
    def distance(self) -> float:
        """How far, alike for twice and for half."""
        return abs(math.log(self.ratio))

    @property
    def notable(self) -> bool:
        """Whether it is more than samples differ by."""
        return abs(self.ratio - 1) > NOTABLE


def moves(before: Ranges, after: Ranges) -> tuple[Move, ...]:
    """Every tensor that both have, the farthest first."""
    found = [
        Move(tensor=name, before=before.amax(name), after=after.amax(name))
        for name in sorted({*before.tensors} & {*after.tensors})
    ]
    return tuple(sorted(found, key=lambda move: -move.distance))


def table_of(found: Sequence[Move]) -> list[str]:
    """Lines of columns."""
    head = ("tensor", "range before", "now", "ratio")
    rows = [(m.tensor, f"{m.before:.4g}", f"{m.after:.4g}", f"{m.ratio:.3g}") for m in found]
    return table(head, rows)
