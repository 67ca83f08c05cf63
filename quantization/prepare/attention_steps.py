"""What an Attention is written with: its sizes, its inputs and outputs, and nodes one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import NodeProto

__all__ = [
    "MASK",
    "PAST_KEY",
    "PAST_VALUE",
    "PRESENT_KEY",
    "PRESENT_VALUE",
    "SCORES",
    "UNPADDED",
    "Given",
    "Sizes",
    "given_float",
    "given_int",
    "is_made",
    "read",
]

MASK, PAST_KEY, PAST_VALUE, UNPADDED = 3, 4, 5, 6  # inputs
PRESENT_KEY, PRESENT_VALUE, SCORES = 1, 2, 3  # outputs
Given = Mapping[str, object]
"""Attributes by name."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Heads of queries and of keys, channels of each, and positions: None where a length is free.

    ``values`` are the channels of V, ``past`` the positions before these: 0 where there are none.
    """

    heads: int
    keyed: int
    channels: int
    values: int
    queries: int | None
    keys: int | None
    past: int | None

    @property
    def seen(self) -> int | None:
        """Positions that are attended to."""
        return None if self.keys is None or self.past is None else self.keys + self.past


def given_float(given: Given, name: str, default: float) -> float:
    """An attribute that is a float."""
    value = given.get(name, default)
    return value if isinstance(value, float) else default


def given_int(given: Given, name: str, default: int) -> int:
    """An attribute that is a whole number."""
    value = given.get(name, default)
    return value if isinstance(value, int) else default


def read(node: NodeProto, index: int) -> str:
    """Name of an input; empty where it is left out."""
    return str(node.input[index]) if len(node.input) > index else ""


def is_made(node: NodeProto, index: int) -> bool:
    """Whether an output is asked for."""
    return len(node.output) > index and bool(node.output[index])
