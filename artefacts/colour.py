"""Colour on a terminal that has it, where NO_COLOR does not forbid it (no-color.org)."""

from __future__ import annotations

import os
from typing import Literal, TextIO

__all__ = ["Style", "painted"]

Style = Literal["bold", "red", "yellow"]
CODES: dict[Style, int] = {"bold": 1, "red": 31, "yellow": 33}


def painted(text: str, style: Style, stream: TextIO) -> str:
    """``text`` in a style, or as it is where ``stream`` is no terminal that shows one."""
    shows = stream.isatty() and os.environ.get("TERM") != "dumb"
    if not shows or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{CODES[style]}m{text}\x1b[0m"
