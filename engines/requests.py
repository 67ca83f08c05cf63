"""The arrays of one call, checked against the engine's inputs before a runtime sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import RequestError
from engines.tensors import Profile, TensorSpec, numpy_dtype

__all__ = ["RequestCheck"]


class RequestCheck:
    """Checks the requests of one engine; made once, called often (a few µs a call).

    NaN passes: a value is the model's business, and looking for one would read every element.
    A non-contiguous array is copied into a contiguous one.
    """

    def __init__(self, inputs: Sequence[TensorSpec], profiles: Sequence[Profile]) -> None:
        """Look dtypes up once."""
        self._inputs = {spec.name: (spec, numpy_dtype(spec.dtype)) for spec in inputs}
        self._profiles = tuple(profile for profile in profiles if profile.min)

    def __call__(self, request: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The arrays in order of the engine's inputs, contiguous, of the right dtype and shape.

        Raises:
            RequestError: an input is missing, unknown, of another dtype or shape, or outside
                every profile.
        """
        if not isinstance(request, Mapping) or request.keys() != self._inputs.keys():
            raise self._wrong_names(request)
        arrays = {
            name: self._checked(request[name], spec, dtype)
            for name, (spec, dtype) in self._inputs.items()
        }
        if self._profiles:
            self._check_profiles({name: array.shape for name, array in arrays.items()})
        return arrays

    def _checked(self, value: Any, spec: TensorSpec, dtype: np.dtype[Any]) -> NDArray[Any]:
        array = value if isinstance(value, np.ndarray) else _array_of(value, spec)
        if array.dtype != dtype:
            raise RequestError(
                f"input {spec.name!r} has dtype {array.dtype}, expected {spec.dtype}; convert it "
                f"with .astype({spec.dtype!r})"
            )
        shape = array.shape
        if len(shape) != len(spec.shape) or not all(
            size == want or (want is None and size > 0)
            for size, want in zip(shape, spec.shape, strict=True)
        ):
            wanted = ", ".join("any" if size is None else str(size) for size in spec.shape)
            raise RequestError(
                f"input {spec.name!r} has shape {shape}, expected ({wanted}) and no empty "
                "dimension; reshape the array"
            )
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)

    def _check_profiles(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        if any(profile.contains(shapes) for profile in self._profiles):
            return
        ranges = " or ".join(
            ", ".join(f"{name} {p.min[name]} to {p.max[name]}" for name in p.min)
            for p in self._profiles
        )
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise RequestError(
            f"request has shapes {found}, expected {ranges} (the engine's profiles); split the "
            "batch or build with larger --maxShapes"
        )

    def _wrong_names(self, request: object) -> RequestError:
        expected = sorted(self._inputs)
        if not isinstance(request, Mapping):
            return RequestError(
                f"request is a {type(request).__name__}, expected a mapping of input name to "
                f"array with the names {expected}; wrap the array"
            )
        missing = sorted(set(self._inputs) - set(request))
        extra = sorted(map(str, set(request) - set(self._inputs)))
        return RequestError(
            f"request lacks the inputs {missing} and has the unknown {extra}, expected exactly "
            f"{expected}; correct the names"
        )


def _array_of(value: Any, spec: TensorSpec) -> NDArray[Any]:
    """A tensor of another framework on the CPU, without a copy, by DLPack."""
    if not hasattr(value, "__dlpack__"):
        raise RequestError(
            f"input {spec.name!r} is a {type(value).__name__}, expected a numpy array or another "
            "DLPack tensor; convert it with numpy.asarray"
        )
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as err:
        raise RequestError(
            f"input {spec.name!r} cannot be read by DLPack ({err}), expected a tensor in CPU "
            "memory without gradient; move or detach it"
        ) from err
