"""Reading a small YAML file that somebody else may have written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from artefacts.errors import DataError
from artefacts.files import read_bounded

__all__ = ["read_yaml"]

_LIMIT_BYTES = 64 * 1024


class _Loader(yaml.SafeLoader):
    """Plain values only: no aliases (they can multiply without end), no key twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name)")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.YAMLError(f"key {', '.join(sorted(twice))} twice")
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML (or JSON) file.

    Raises:
        DataError: not YAML, aliases, a key twice, or something else than a mapping.
        InputError: no such file, or larger than 64 KiB.
    """
    raw = read_bounded(path, limit_bytes=_LIMIT_BYTES, what="YAML file")
    try:
        value = yaml.load(raw, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        reason = " ".join(str(err).split()) or type(err).__name__
        raise DataError(
            f"YAML file {path} cannot be used ({reason}), expected plain keys and values without "
            "aliases; correct it"
        ) from err
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DataError(
            f"YAML file {path} holds a {type(value).__name__}, expected keys and values such as "
            "'scale: 1/255'; correct it"
        )
    return value
