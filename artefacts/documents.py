"""JSON that somebody else may have written: plain values, bounded; for YAML see yaml_documents."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["check_text", "parse_json"]

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(raw: bytes, *, infinite: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        raw: UTF-8 (or 16, or 32).
        infinite: whether ``NaN`` and ``Infinity`` may stand for numbers.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        text = raw.decode(json.detect_encoding(raw))
        value = json.loads(text, parse_constant=None if infinite else _refuse)
    except RecursionError as err:
        raise ValueError("brackets nested too deeply") from err
    check_text(text, value)
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


def check_text(text: str, value: Any) -> None:
    """Half a surrogate pair is no text: it can neither be printed nor hashed."""
    if _ESCAPED_SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False, default=str).encode()
