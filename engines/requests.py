"""The arrays of one call, checked against the engine's inputs before a runtime sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import NotFiniteError, RequestError
from engines.dlpack import BorrowedTensor
from engines.tensors import Profile, TensorSpec, numpy_dtype

__all__ = ["RequestCheck"]


class RequestCheck:
    """Checks the requests of one engine; made once, called often (a few µs a call).

    NaN passes unless ``finite`` is asked for: looking for one reads every element.
    A non-contiguous array is copied into a contiguous one.
    """

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        profiles: Sequence[Profile],
        adopt: Callable[[Any], BorrowedTensor | None],
        *,
        finite: bool = False,
    ) -> None:
        """Look dtypes up once; ``adopt`` takes tensors that lie on the runner's device."""
        self.finite = finite
        self._adopt = adopt
        self._inputs = {spec.name: (spec, numpy_dtype(spec.dtype)) for spec in inputs}
        self._profiles = tuple(profile for profile in profiles if profile.min)

    def __call__(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The arrays in order of the engine's inputs, contiguous, of the right dtype and shape.

        Raises:
            RequestError: an input is missing, unknown, of another dtype or shape, or outside
                every profile.
        """
        if not isinstance(request, Mapping) or request.keys() != self._inputs.keys():
            raise self._wrong_names(request)
        arrays: dict[str, Any] = {}
        try:
            for name, (spec, dtype) in self._inputs.items():
                array = request[name]
                if not isinstance(array, np.ndarray):
                    array = self._tensor(array, spec)
                arrays[name] = array
                arrays[name] = _checked(array, spec, dtype)
                if self.finite:
                    _check_finite(arrays[name], spec)
            if self._profiles:
                self._check_profiles({name: array.shape for name, array in arrays.items()})
        except RequestError:
            for array in arrays.values():
                if isinstance(array, BorrowedTensor):
                    array.release()
            raise
        return arrays

    def _tensor(self, value: Any, spec: TensorSpec) -> NDArray[Any] | BorrowedTensor:
        """A tensor of another framework, without a copy, by DLPack."""
        if not hasattr(value, "__dlpack__"):
            raise RequestError(
                f"input {spec.name!r} is a {type(value).__name__}, expected a numpy array or "
                "another DLPack tensor; convert it with numpy.asarray"
            )
        adopted = self._adopt(value)
        if adopted is not None:
            return adopted
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as err:
            raise RequestError(
                f"input {spec.name!r} cannot be read by DLPack ({err}), expected a tensor without "
                "gradient in CPU memory or on the engine's GPU; move or detach it"
            ) from err

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


def _check_finite(array: Any, spec: TensorSpec) -> None:
    """Refuse NaN and infinities; a tensor on a GPU is not read."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fc":
        return
    # The sum is finite where all values are (or it overflows); it needs no array of booleans.
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum()):
            return
    wrong = array.size - int(np.count_nonzero(np.isfinite(array)))
    if wrong:
        raise NotFiniteError(
            f"input {spec.name!r} has {wrong} values that are NaN or infinite, expected finite "
            "ones; clean the data, or load the engine without check_inputs"
        )


def _checked(array: Any, spec: TensorSpec, dtype: np.dtype[Any]) -> Any:
    """The array, contiguous, if dtype and shape fit."""
    if array.dtype != dtype:
        raise RequestError(
            f"input {spec.name!r} has dtype {array.dtype}, expected {spec.dtype}; convert it, "
            f"e.g. with .astype({spec.dtype!r})"
        )
    shape = array.shape
    # What a decoder has seen may be nothing; a batch of nothing is a caller's mistake.
    if len(shape) != len(spec.shape) or not all(
        size == want or (want is None and (size > 0 or axis > 0))
        for axis, (size, want) in enumerate(zip(shape, spec.shape, strict=True))
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in spec.shape)
        raise RequestError(
            f"input {spec.name!r} has shape {shape}, expected ({wanted}) and a first dimension "
            "that is not empty; reshape the array"
        )
    if isinstance(array, BorrowedTensor):
        if not array.contiguous:
            raise RequestError(
                f"input {spec.name!r} is a GPU tensor with gaps or another order of axes, "
                "expected a contiguous one; call .contiguous()"
            )
        return array
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)
