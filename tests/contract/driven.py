"""What every scenario of ``engine_drive.py`` saw, and one of them."""

from __future__ import annotations

from typing import Any

GENERATIONS = ("trt8", "trt10_3", "trt10", "trt11")
Seen = dict[str, Any]


def scenario(seen: Seen, name: str) -> Seen:
    assert "broken" not in seen[name], seen[name]["broken"]
    return seen[name]
