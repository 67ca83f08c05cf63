"""Changes of a file's bytes: flipped, cut, doubled, inserted, numbers and brackets replaced."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

__all__ = ["KINDS", "Mutation", "mutated", "random_mutations"]

Mutation = tuple[str, float, int]
"""Kind, place (0 to 1) and a number."""

KINDS = ("flip", "byte", "cut", "double", "insert", "end", "number", "token", "zeros")
_NUMBERS = (b"-1", b"0", b"1e999", b"9" * 400, b"NaN", b"1.5", b"null", b"true", b'"x"', b"[]")
_TOKENS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b'"',
    b"\n",
    b"\x00",
    b"\xff",
    b"*a",
    b"&a ",
    b"\\ud800",
)


def mutated(data: bytes, mutations: Sequence[Mutation]) -> bytes:
    """``data`` after all changes, in order."""
    for kind, place, number in mutations:
        at = int(place * len(data))
        if kind == "flip" and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ (1 << number % 8)]) + data[at + 1 :]
        elif kind == "byte":
            data = data[:at] + bytes([number % 256]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at] + data[at + 1 + number % 64 :]
        elif kind == "double":
            data = data[:at] + data[at : at + 1 + number % 64] * 2 + data[at:]
        elif kind in ("insert", "token"):
            data = data[:at] + _TOKENS[number % len(_TOKENS)] + data[at + (kind == "token") :]
        elif kind == "zeros":
            data = data[:at] + bytes(number % 32) + data[at + number % 32 :]
        elif kind == "end":
            data = data[:at]
        elif kind == "number":
            found = list(re.finditer(rb"-?[0-9]+(\.[0-9]+)?", data))
            if found:
                chosen = found[min(int(place * len(found)), len(found) - 1)]
                new = _NUMBERS[number % len(_NUMBERS)]
                data = data[: chosen.start()] + new + data[chosen.end() :]
    return data


def random_mutations(rng: np.random.Generator) -> list[Mutation]:
    """One to four of them."""
    return [
        (KINDS[rng.integers(len(KINDS))], float(rng.random()), int(rng.integers(1 << 16)))
        for _ in range(rng.integers(1, 5))
    ]
