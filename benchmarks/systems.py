"""A system under test: a callable with a name, and what the report says about its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from artefacts.files import sha256_file
from calibrators.data import InputSpec

__all__ = ["System", "file_facts", "query_of", "unique_names"]

Arrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class System:
    """What the command measures.

    Attributes:
        name: unique in the report.
        path: of the engine or model.
        call: from input arrays to output arrays.
        inputs: name, dtype and shape of each input, as the engine tells them.
        target: who runs it, e.g. ``cpu``.
        precision: as the manifest says, else ``unknown``.
        passport: what the engine's manifest says of model, data and preprocessing.
    """

    name: str
    path: Path
    call: Callable[[dict[str, npt.NDArray[np.generic]]], Arrays]
    inputs: tuple[InputSpec, ...]
    target: str
    precision: str
    passport: Mapping[str, Any] = field(default_factory=dict)


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Short names: the stem; the folder in front of it where two stems are equal.

    Args:
        paths: files in the order of the command line.
    """
    names = [path.name.removesuffix(".engine").removesuffix(".onnx") for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}/{name}" for path, name in zip(paths, names, strict=True)]
    return [
        name if names.index(name) == index else f"{name} ({index + 1})"
        for index, name in enumerate(names)
    ]


def query_of(
    call: Callable[[dict[str, npt.NDArray[np.generic]]], Arrays],
    batches: Sequence[dict[str, npt.NDArray[np.generic]]],
) -> Callable[[], Arrays]:
    """A query for the harness: each call feeds the next of ``batches``, over and over.

    Real samples, several of them: zeros are faster on some hardware and draw less power.
    """
    feed = cycle(batches)
    return lambda: call(next(feed))


def file_facts(path: Path) -> dict[str, Any]:
    """Path, hash and size of a system's file."""
    return {"path": str(path), "sha256": sha256_file(path), "size_bytes": path.stat().st_size}
