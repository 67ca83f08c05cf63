"""Shards: which of the samples one of several runs observes."""

from __future__ import annotations

import re

from artefacts.errors import InputError

__all__ = ["parse_shard"]


def parse_shard(text: str) -> slice:
    """The samples of a shard, e.g. "2/8" → ``slice(1, None, 8)``: every eighth from the second.

    Raises:
        InputError: not two numbers i/n with 1 <= i <= n.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    number, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= of:
        raise InputError(
            f"shard {text!r}, expected i/n with i from 1 to n, e.g. 2/8; correct --shard"
        )
    return slice(number - 1, None, of)
