"""Words for numbers of things, as a person reads them."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, thing: str) -> str:
    """``1 sample``, ``2 samples``, ``1,234 images``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
