"""What every builder hands back: the bytes of an engine and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from engines.tensors import Profile, TensorSpec

__all__ = ["BuiltEngine", "Feeds", "Report"]

# phase, its parent phase or None, steps done, steps in all
Report = Callable[[str, str | None, int, int], None]
# inputs as requests will have them
Feeds = Sequence[Mapping[str, NDArray[Any]]]


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """An engine in memory.

    Attributes:
        data: what goes into the file, a plain plan or blob.
        library: name and version that built it.
        device: that it is for.
        precisions: ONNX node → precision that runs; ``None`` where only a GPU could tell.
        source: where the precisions were read.
        facts: how it was built, for the manifest.
        kernels: ONNX node → kernel that computes it, where a loaded engine tells no more than the
            kernel's name.
    """

    data: bytes
    library: Mapping[str, str]
    device: Mapping[str, Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    precisions: Mapping[str, str] | None
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    kernels: Mapping[str, str] = field(default_factory=dict)
