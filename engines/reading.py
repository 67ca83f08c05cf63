"""Whether a target's library reads a model at all: asked before hours of work go into it."""

from __future__ import annotations

from pathlib import Path

from artefacts.errors import UnsupportedError
from engines.openvino.build import read_network
from engines.tensorrt.build import try_parser
from engines.tensorrt.library import tensorrt

__all__ = ["check_readable"]


def check_readable(target: str, path: Path) -> None:
    """Refuse a model with operators that the library of a target does not convert.

    What a machine lacks to build (a GPU, a driver) is no fault of the model and said by the build.

    Args:
        target: ``cpu``, ``tensorrt`` or ``tensorrt-rtx``.
        path: of the float model, or of one that came quantized.

    Raises:
        ModelError: the library refuses it, with the nodes.
        MissingLibraryError: the target's library is not installed.
    """
    if target == "cpu":
        read_network(path)
        return
    try:
        try_parser(tensorrt(target), path)
    except UnsupportedError:
        return
