"""What Ultralytics writes into the ONNX files that it exports: task, image size, class names."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from artefacts.texts import shown
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.preprocessing.presets import PRESETS, Dims, channels_of, layout_of, sides_of

__all__ = ["from_metadata", "is_ultralytics", "names_of"]

_LARGEST = 1 << 20  # characters of a value; thousands of class names need less


def is_ultralytics(metadata: Mapping[str, str]) -> bool:
    """Whether a model's ``metadata_props`` are Ultralytics': its exporter writes all of these."""
    return {"task", "imgsz", "names", "stride"} <= metadata.keys()


def from_metadata(metadata: Mapping[str, str], shape: Dims) -> Preprocess:
    """The preprocessing of the task; ``imgsz`` is the size where the model leaves it open.

    Raises:
        DataError: the input is none of an image.
    """
    name = "ultralytics-classify" if metadata["task"] == "classify" else "ultralytics"
    stated = _literal(metadata["imgsz"])
    said = stated if isinstance(stated, (list, tuple)) and len(stated) == 2 else (None, None)
    height, width = (
        have or (side if isinstance(side, int) else None)
        for have, side in zip(sides_of(shape), said, strict=True)
    )
    channels = channels_of(shape)
    sized = (None, channels, height, width)
    if layout_of(shape) == "nhwc":
        sized = (None, height, width, channels)
    return PRESETS[name].sized(name, sized)


def names_of(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Class names by index; empty where they are not ``{0: 'person', …}`` without gaps."""
    names = _literal(metadata.get("names", ""))
    if isinstance(names, Mapping) and list(names) == list(range(len(names))):
        names = list(names.values())
    if not isinstance(names, (list, tuple)):
        return ()
    return tuple(name if isinstance(name, str) else shown(name) for name in names)


def _literal(text: str) -> Any:
    """A Python literal, as Ultralytics writes its values; None where it is none."""
    if len(text) > _LARGEST:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
