"""The graphs beside an engine: what it was built from, and the float graph behind that.

Both are files of the earlier stages, ``*.int8.onnx`` and ``*.prepared.onnx`` (``*.improved.onnx``
where weights were corrected). Read only where their hash is the one that the manifest names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from artefacts.files import sha256_file
from graphs.identity import graph_hash

__all__ = ["find_graphs"]

FLOAT_GRAPHS = ("*.improved.onnx", "*.prepared.onnx")


def find_graphs(engine: Path, source: Mapping[str, Any]) -> tuple[Path, Path] | None:
    """The float graph and the Q/DQ graph of an engine; None where one does not lie beside it.

    Args:
        engine: its folder is searched.
        source: of its manifest: ``name`` and ``sha256`` of the ONNX file, and of its passport
            ``graph_hash`` and, where weights were improved, ``improved_graph_hash``.
    """
    int8 = engine.parent / Path(str(source.get("name"))).name  # a name, never a path
    wanted = source.get("improved_graph_hash") or source.get("graph_hash")
    if not wanted or not int8.is_file() or sha256_file(int8) != source.get("sha256"):
        return None
    for pattern in FLOAT_GRAPHS:
        for path in sorted(engine.parent.glob(pattern)):
            if path != int8 and _hash_of(path) == wanted:
                return path, int8
    return None


def _hash_of(path: Path) -> str | None:
    """None for a file that is no model, or whose external data is missing."""
    try:
        return graph_hash(onnx.load(path))
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError):
        return None
