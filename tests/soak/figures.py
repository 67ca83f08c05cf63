"""What an attack tried and what survived it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Figure", "table"]


@dataclass(kw_only=True)
class Figure:
    """Counts of one attack.

    Attributes:
        attack: what was done.
        tried: how often.
        survived: how often nothing was wrong afterwards.
        wrong: what was, and how often.
    """

    attack: str
    tried: int = 0
    survived: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    def count(self, *wrong: str) -> None:
        """One more; survived where nothing is wrong."""
        self.tried += 1
        self.survived += not wrong
        self.wrong.update(wrong)


def table(figures: list[Figure]) -> str:
    """Rows of a Markdown table."""
    lines = ["| attack | tried | survived | what was wrong |", "|---|---:|---:|---|"]
    for each in figures:
        wrong = "; ".join(f"{count} × {what}" for what, count in each.wrong.most_common(6))
        lines.append(f"| {each.attack} | {each.tried} | {each.survived} | {wrong or '–'} |")
    return "\n".join(lines)
