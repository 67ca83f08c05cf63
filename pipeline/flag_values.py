"""What the flags take: text to values, trtexec's spellings among them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

from quantization.improve.methods import EFFORTS

__all__ = [
    "Shapes",
    "amount",
    "count",
    "effort",
    "least_share",
    "local_path",
    "names",
    "parse_axes",
    "parse_pools",
    "parse_shapes",
    "parse_shard",
    "seconds",
    "share",
]

Shapes = Mapping[str, tuple[int, ...]]


def parse_shapes(text: str) -> Shapes:
    """Shapes as trtexec writes them, ``image:1x3x224x224,mask:1x1x224x224``.

    Names may hold colons.

    Raises:
        argparse.ArgumentTypeError: the text is not of that form.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        name, colon, dims = part.rpartition(":")
        sizes = dims.split("x")
        if not (colon and name and all(size.isdigit() for size in sizes)):
            raise argparse.ArgumentTypeError(f"{part!r} is not of the form name:1x3x224x224")
        shapes[name] = tuple(map(int, sizes))
    return shapes


def parse_shard(text: str) -> tuple[int, int]:
    """``2/8`` is the second of eight parts.

    Raises:
        argparse.ArgumentTypeError: the text is not of that form.
    """
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 2/8 (second of eight parts)")
    return int(part), int(parts)


def parse_pools(text: str) -> dict[str, float]:
    """Sizes as trtexec writes them, ``workspace:1024,dlaSRAM:0.5``, in MiB.

    Raises:
        argparse.ArgumentTypeError: the text is not of that form.
    """
    pools = {}
    for part in text.split(","):
        name, _, size = part.partition(":")
        if not (name and size):
            raise argparse.ArgumentTypeError(f"{part!r} is not of the form POOL:MiB")
        pools[name] = amount(size)
    return pools


def effort(text: str) -> int | str:
    """A word of ``EFFORTS``, or how many samples.

    Raises:
        argparse.ArgumentTypeError: the text is neither.
    """
    if text in EFFORTS:
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither one of {', '.join(EFFORTS)} nor a number of samples"
        )
    return int(text)


def parse_axes(text: str) -> dict[str, int]:
    """Axes of samples, ``image=0,state=1``; names may hold equals signs.

    Raises:
        argparse.ArgumentTypeError: the text is not of that form.
    """
    axes = {}
    for part in text.split(","):
        name, _, axis = part.rpartition("=")
        if not (name and axis.isdigit()):
            raise argparse.ArgumentTypeError(f"{part!r} is not of the form INPUT=0")
        axes[name] = int(axis)
    return axes


def names(text: str) -> tuple[str, ...]:
    """Comma-separated names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def local_path(text: str) -> Path:
    """A file or folder on this machine.

    Raises:
        argparse.ArgumentTypeError: the text is an address; a path would lose one of its slashes.
    """
    scheme, found, _ = text.partition("://")
    if found and scheme.isalnum():
        raise argparse.ArgumentTypeError(
            f"{text} is an address, expected a file or folder on this machine; fetch it first"
        )
    return Path(text)


def count(text: str) -> int:
    """A whole number of at least one."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def amount(text: str) -> float:
    """A finite number of at least zero."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def seconds(text: str) -> float:
    """A finite number above zero."""
    value = amount(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def least_share(text: str) -> float:
    """A share, ``0.9`` or ``90%``; 0 to 1."""
    percent = text.endswith("%")
    value = amount(text.removesuffix("%")) / (100 if percent else 1)
    if value > 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a share such as 0.9 or 90% (write {value:g}%?)"
        )
    return value


def share(text: str) -> float:
    """A share, ``0.99`` or ``99%``; above 0, at most 1."""
    percent = text.endswith("%")
    value = amount(text.removesuffix("%")) / (100 if percent else 1)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 0.99 or 99%")
    return value
