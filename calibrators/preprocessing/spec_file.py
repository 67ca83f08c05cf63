"""Reading a small YAML file that somebody else may have written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artefacts.errors import DataError
from artefacts.files import read_bounded
from artefacts.texts import shortened
from artefacts.yaml_documents import parse_yaml

__all__ = ["read_yaml"]

_LIMIT_BYTES = 64 * 1024


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML (or JSON) file.

    Raises:
        DataError: not YAML, aliases, a key twice, or something else than a mapping.
        InputError: no such file, or larger than 64 KiB.
    """
    raw = read_bounded(path, limit_bytes=_LIMIT_BYTES, what="YAML file")
    try:
        value = parse_yaml(raw)
    except ValueError as err:
        raise DataError(
            f"YAML file {path} cannot be used ({shortened(str(err))}), expected plain keys and "
            "values without aliases; correct it"
        ) from err
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DataError(
            f"YAML file {path} holds a {type(value).__name__}, expected keys and values such as "
            "'scale: 1/255'; correct it"
        )
    return value
