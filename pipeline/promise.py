"""What the user wants kept of the accuracy.

``--max-drop`` is judged by labels: how much the task's metric falls below that of the FP32 model.
``--min-sqnr`` and ``--min-agreement`` are judged by the FP32 outputs, without labels. The score of
all three is larger for a better model; that of a drop is its negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quantization.search.problem import Goal

__all__ = ["Promise"]

FLAGS = {"drop": "--max-drop", "sqnr": "--min-sqnr", "agreement": "--min-agreement"}


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One limit.

    Attributes:
        kind: what is limited.
        minimum: smallest score: dB, percent of samples with the same top-1, or minus the points
            (for a metric that is no share, percent of the FP32 figure) that may be lost.
    """

    kind: Literal["drop", "sqnr", "agreement"]
    minimum: float

    def __str__(self) -> str:
        return f"{self.flag} {abs(self.minimum):g}"

    @property
    def flag(self) -> str:
        """The flag that makes it."""
        return FLAGS[self.kind]

    def goal(self, unit: str) -> Goal:
        """For the search."""
        return Goal(minimum=self.minimum, unit=unit, drop=self.kind == "drop")
