"""Texts of others in texts of ours: bounded, and without characters that steer a terminal."""

from __future__ import annotations

import json
import reprlib

__all__ = ["bounded", "printable", "printable_json", "shortened", "shown"]

MOST_CHARACTERS = 200
_LONGEST_SENTENCE = 4000
_MOST_BITS = 4096  # of an integer that is written out


class _Repr(reprlib.Repr):
    """A few entries of a few levels, whatever lies beneath."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = 80

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write integers of more than 4,300 digits."""
        return repr(x) if x.bit_length() <= _MOST_BITS else f"<integer of {x.bit_length()} bits>"

    def repr_date(self, x: object, level: int) -> str:
        """As YAML has it."""
        return str(x)

    def repr_str(self, x: str, level: int) -> str:
        """Cut before it is escaped: only so much is looked at."""
        return super().repr_str(x[: self.maxstring + 1], level)


_REPR = _Repr()


def shown(value: object) -> str:
    """``repr`` of a value that came from a file: short, whatever it is, and printable."""
    return shortened(_REPR.repr(value))


def shortened(text: str) -> str:
    """One printable line of at most 200 characters."""
    line = " ".join(text[: 2 * MOST_CHARACTERS].split())
    return printable(line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…")


def bounded(sentence: str) -> str:
    """A sentence as a terminal can show it: of one that names endless things, both ends."""
    if len(sentence) <= _LONGEST_SENTENCE:
        return sentence
    half = _LONGEST_SENTENCE // 2
    return f"{sentence[:half]} … {sentence[-half:]}"


def printable(text: str, *, kept: str = "\n\t") -> str:
    """``text`` with control characters and half surrogates escaped, except those to be kept."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)


def printable_json(text: str) -> str:
    """The same JSON with whatever steers a terminal escaped as JSON has it."""
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
