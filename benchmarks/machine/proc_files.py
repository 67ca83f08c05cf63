"""Small reads of ``/proc`` and ``/sys``: text, numbers, or nothing."""

from __future__ import annotations

from pathlib import Path

__all__ = ["read_number", "read_text"]

LIMIT_BYTES = 1 << 20


def read_text(path: Path) -> str | None:
    """The file's text without surrounding space; None where it cannot be read.

    Device-tree strings end in NUL bytes; a sensor that is switched off gives an I/O error.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LIMIT_BYTES).decode(errors="replace")
    except OSError:
        return None
    return text.replace("\0", " ").strip() or None


def read_number(path: Path) -> float | None:
    """The number at the start of a file, e.g. 32760 of ``32760 ma``; None where there is none."""
    words = (read_text(path) or "").split()
    try:
        return float(words[0])
    except (IndexError, ValueError):
        return None
