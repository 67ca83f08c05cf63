"""What differs between systems, so that the rest need not know which one it runs on."""

from __future__ import annotations

import io
import os
import sys

__all__ = ["print_every_character", "usable_cores"]


def usable_cores() -> int:
    """Cores that this process may use; all, where the system does not tell (only Linux does)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def print_every_character() -> None:
    """Print ``?`` where a stream's encoding lacks a character, instead of failing.

    A pipe on Windows has no arrows and no Greek.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
