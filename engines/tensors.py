"""What goes into and comes out of an engine: names, dtypes, shapes, and ranges of shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from artefacts.errors import InputError

__all__ = ["Profile", "Shape", "TensorSpec", "numpy_dtype"]

Shape = tuple[int, ...]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of a name as manifests spell it; bfloat16 and its kind come from ml_dtypes.

    Raises:
        InputError: no such dtype.
    """
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # comes with onnx; gives numpy the types that only accelerators have

        if not hasattr(ml_dtypes, name):
            raise InputError(
                f"dtype {name!r} is unknown, expected a numpy name such as float32"
            ) from None
        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return found


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output of an engine.

    Attributes:
        name: as in the ONNX graph.
        dtype: numpy name, e.g. ``"float32"``.
        shape: e.g. ``(None, 3, 224, 224)``; ``None`` is a dynamic dimension.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def to_json(self) -> dict[str, Any]:
        """As the manifest stores it."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        """From what the manifest stores (already validated against the schema)."""
        return cls(name=data["name"], dtype=data["dtype"], shape=tuple(data["shape"]))


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The smallest, most frequent and largest shape of each dynamic input.

    Attributes:
        min: e.g. ``{"input": (1, 3, 224, 224)}``.
        opt: the shapes that the builder tunes for.
        max: the largest; requests above it are refused.
    """

    min: Mapping[str, Shape] = field(default_factory=dict)
    opt: Mapping[str, Shape] = field(default_factory=dict)
    max: Mapping[str, Shape] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Freeze the mappings; check that all three name the same inputs, in order of size."""
        for name in ("min", "opt", "max"):
            shapes = {key: tuple(map(int, shape)) for key, shape in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(shapes))
        if not self.min.keys() == self.opt.keys() == self.max.keys():
            raise InputError(
                f"profile names the inputs {sorted(self.min)} in min, {sorted(self.opt)} in opt "
                f"and {sorted(self.max)} in max, expected the same in all; add what is missing"
            )
        for key in self.min:
            _check_order(key, self.min[key], self.opt[key], self.max[key])

    def contains(self, shapes: Mapping[str, Sequence[int]]) -> bool:
        """Whether every shape lies between min and max (inputs it does not name are static)."""
        return all(
            len(shape) == len(self.min[name])
            and all(
                low <= size <= high
                for low, size, high in zip(self.min[name], shape, self.max[name], strict=True)
            )
            for name, shape in shapes.items()
            if name in self.min
        )

    def to_json(self) -> dict[str, dict[str, list[int]]]:
        """As the manifest stores it."""
        return {
            which: {name: list(shape) for name, shape in getattr(self, which).items()}
            for which in ("min", "opt", "max")
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, Sequence[int]]]) -> Profile:
        """From what the manifest stores."""
        return cls(
            **{
                which: {name: tuple(shape) for name, shape in data[which].items()}
                for which in ("min", "opt", "max")
            }
        )


def _check_order(name: str, low: Shape, opt: Shape, high: Shape) -> None:
    """Same rank, and 0 <= min <= opt <= max in every dimension; a past may be empty at first."""
    ordered = len(low) == len(opt) == len(high) and all(
        0 <= a <= b <= c for a, b, c in zip(low, opt, high, strict=True)
    )
    if not ordered:
        raise InputError(
            f"profile of input {name!r} has min {low}, opt {opt}, max {high}, expected the same "
            "number of dimensions and 0 <= min <= opt <= max in each; correct the shapes"
        )
