"""What ``--preprocess`` names: a file of ours or of another library, or a preset."""

from __future__ import annotations

from pathlib import Path

from artefacts.errors import DataError
from calibrators.preprocessing.detect import read_description
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.preprocessing.presets import Dims, preset
from calibrators.preprocessing.timm_models import timm_model

__all__ = ["named_preprocess"]

_TIMM = "timm:"


def named_preprocess(name: str | Path, shape: Dims | None) -> Preprocess:
    """A spec file, ``preprocessor_config.json``, timm's ``config.json``, a preset or ``timm:NAME``.

    Args:
        name: as a person gave it; a file of that name wins over a preset.
        shape: of the model's image input; None where it has none, or several.

    Raises:
        DataError: none of these, or one that cannot be used.
        MissingLibraryError: ``timm:NAME`` without timm.
    """
    path, text = Path(name), str(name)
    if path.is_dir():
        raise DataError(
            f"preprocessing {text} is a folder, expected a YAML file or the name of a preset; give "
            f"the file, such as {path / 'preprocess.yaml'}"
        )
    if path.suffix in (".json", ".tflite") and path.is_file() and shape is not None:
        stated = read_description(path, shape)
        if stated is not None:
            return stated
    if path.is_file() or path.suffix in (".yaml", ".yml", ".json") or "/" in text:
        return Preprocess.from_yaml(path)
    if shape is None:
        raise DataError(
            f"preprocessing {text} is for images and the model has no single input with four axes, "
            "expected one; write a spec file that names it with 'input' (docs/data.md)"
        )
    if text.startswith(_TIMM):
        return timm_model(text.removeprefix(_TIMM), shape)
    return preset(text, shape)
