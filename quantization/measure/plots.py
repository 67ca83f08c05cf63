"""Plots written to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artefacts.files import replace_atomic

__all__ = ["save_figure"]


def save_figure(figure: Any, path: Path) -> None:
    """Write a matplotlib figure, all of it or nothing; the format is the ending's, else PNG.

    Raises:
        InputError: the folder cannot be written to.
    """
    with replace_atomic(path) as part:
        figure.savefig(part, format=path.suffix.lstrip(".") or "png", dpi=120)
