"""What a model says of its preprocessing and classes, in its file or in files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artefacts.documents import parse_json
from artefacts.errors import DataError
from artefacts.faults import reading
from artefacts.files import read_bounded
from artefacts.texts import shortened
from calibrators.preprocessing import ultralytics
from calibrators.preprocessing.hugging_face import from_preprocessor_config, is_image_config
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.preprocessing.presets import Dims
from calibrators.preprocessing.tflite import read_tflite
from calibrators.preprocessing.timm_models import from_pretrained_cfg

__all__ = ["Described", "detect", "read_description", "stated_classes"]

_LIMIT_BYTES = 16 << 20
_REMEDY = "expected what its library wrote; restore it, or give --preprocess"


@dataclass(frozen=True, kw_only=True)
class Described:
    """Preprocessing that was found.

    Attributes:
        preprocess: the spec.
        origin: where it stands, for the screen.
    """

    preprocess: Preprocess
    origin: str


def detect(path: Path, metadata: Mapping[str, str], shape: Dims) -> Described | None:
    """The preprocessing that a model's own description says.

    Looked for in this order: Ultralytics' metadata in the ONNX file; beside it
    ``preprocessor_config.json`` (Hugging Face), ``config.json`` with a ``pretrained_cfg`` (timm), a
    ``.tflite`` file of the same name with metadata.

    Args:
        path: of the ONNX file.
        metadata: its ``metadata_props``.
        shape: of the image input.

    Raises:
        DataError: a description is there and cannot be used.
    """
    if ultralytics.is_ultralytics(metadata):
        with reading(path, "Ultralytics' metadata in", remedy=_REMEDY, error=DataError):
            found = ultralytics.from_metadata(metadata, shape)
        return Described(preprocess=found, origin=f"Ultralytics' metadata in {path}")
    for name in ("preprocessor_config.json", "config.json", path.with_suffix(".tflite").name):
        beside = path.with_name(name)
        if beside.is_file() and (stated := read_description(beside, shape)) is not None:
            return Described(preprocess=stated, origin=str(beside))
    return None


def read_description(path: Path, shape: Dims) -> Preprocess | None:
    """The spec that a file of another library says; None where it says nothing of images.

    Raises:
        DataError: it is damaged, or prepares images in a way that no spec has.
    """
    if path.suffix == ".tflite":
        stated = read_tflite(path)
        if stated is None or not (stated.mean and stated.std):
            return None
        return stated.preprocess(shape, where=str(path))
    config = _json(path) or {}
    with reading(path, "model description", remedy=_REMEDY, error=DataError):
        if isinstance(config.get("pretrained_cfg"), Mapping):
            return from_pretrained_cfg(config["pretrained_cfg"], shape, where=str(path))
        if is_image_config(config):
            return from_preprocessor_config(config, shape, where=str(path))
    return None


def stated_classes(path: Path, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Class names by the model's class index, from the same places; empty where none says them.

    Also ``id2label`` and ``label_names`` in ``config.json``, and ``classes.txt`` beside the model.

    Raises:
        DataError: a description is there and cannot be read.
    """
    if names := ultralytics.names_of(metadata):
        return names
    if names := _labels(_json(path.with_name("config.json")) or {}):
        return names
    beside = path.with_name("classes.txt")
    if beside.is_file():
        text = read_bounded(beside, limit_bytes=_LIMIT_BYTES, what="class names")
        lines = text.decode("utf-8-sig", "replace").splitlines()
        return tuple(line.strip() for line in lines if line.strip())
    lite = path.with_suffix(".tflite")
    stated = read_tflite(lite) if lite.is_file() else None
    return () if stated is None else stated.classes


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The ``id2label`` of transformers, or the ``label_names`` of timm."""
    table = config.get("id2label")
    if isinstance(table, Mapping):
        names = [table.get(str(index)) for index in range(len(table))]
        # Without names of its own transformers numbers them.
        told = all(isinstance(name, str) for name in names)
        numbered = all(name == f"LABEL_{index}" for index, name in enumerate(names))
        return tuple(map(str, names)) if told and not numbered else ()
    listed = config.get("label_names")
    return tuple(map(str, listed)) if isinstance(listed, list) else ()


def _json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file."""
    if not path.is_file():
        return None
    raw = read_bounded(path, limit_bytes=_LIMIT_BYTES, what="model description")
    try:
        value = parse_json(raw)
    except ValueError as err:
        raise DataError(
            f"{path} beside the model is not JSON ({shortened(str(err))}), expected what "
            "its library wrote; restore it, or move it away and give --preprocess"
        ) from err
    return value if isinstance(value, dict) else None
