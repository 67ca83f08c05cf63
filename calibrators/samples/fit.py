"""Whether an array is what an input takes: shape, dtype without loss, finite values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import DataError
from calibrators.samples.samples import AS_DECLARED, InputSpec

__all__ = ["check_kind", "fit_array", "fits", "fits_beside", "remedy", "without_ones"]


def fit_array(array: NDArray[Any], spec: InputSpec, *, where: str) -> NDArray[Any]:
    """``array`` in the dtype of the input, C-contiguous, its shape and values checked.

    Raises:
        DataError: another shape, a dtype that does not convert without loss, NaN or Inf.
    """
    shape = array.shape
    axis = 0 if spec.axis == AS_DECLARED else spec.axis
    single = (
        axis is not None and fits_beside(axis, shape, spec.shape) and shape[axis] == 1
    )  # of a batch that may be fixed
    if not single and not fits(shape, spec.shape):
        raise DataError(
            f"{where} has shape {list(shape)} after preprocessing, expected one for input {spec}; "
            f"{remedy(shape, spec)}"
        )
    check_kind(array.dtype, spec, where=where)
    if array.dtype.kind in "iu" and spec.dtype.kind in "iu" and array.size:
        bounds, low, high = np.iinfo(spec.dtype), int(array.min()), int(array.max())
        if low < int(bounds.min) or high > int(bounds.max):
            raise DataError(
                f"{where} holds values {low}..{high}, expected {bounds.min}..{bounds.max} for "
                f"input {spec}; correct the data"
            )
    with np.errstate(over="ignore"):
        fed = np.ascontiguousarray(array, spec.dtype).reshape(shape)
    _check_finite(fed, array, where)
    return fed


def _check_finite(fed: NDArray[Any], array: NDArray[Any], where: str) -> None:
    if fed.dtype.kind != "f" or np.isfinite(fed).all():
        return
    if np.isfinite(array).all():
        raise DataError(
            f"{where} holds values up to {np.abs(array).max():.4g}, expected ones that {fed.dtype} "
            "can hold; scale the data"
        )
    nan, inf = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    raise DataError(
        f"{where} holds {nan} NaN and {inf} Inf among {array.size} values, expected finite "
        "numbers; correct or remove this sample"
    )


def check_kind(dtype: np.dtype[Any], spec: InputSpec, *, where: str) -> None:
    """Float to float and integer to integer convert; integers are no real values without a spec."""
    have, want = dtype.kind, spec.dtype.kind
    if have == want or have == "b" or (have in "iu" and want in "iu"):
        return
    if have in "iu" and want in "fV":
        raise DataError(
            f"{where} is {dtype}, expected real values for input {spec}; say in a preprocessing "
            "spec what the integers mean: 'scale: 1/255' with mean and std for uint8 images, or "
            f"'inputs: {{{spec.name}: {{scale: 1}}}}' to take the numbers as they are"
        )
    if have == "f" and want == "V":  # bfloat16 and the 8-bit floats of ml_dtypes
        return
    raise DataError(
        f"{where} is {dtype}, expected {spec.dtype} for input {spec}; convert it, or for images "
        "set dtype in the preprocessing spec"
    )


def fits(shape: Sequence[int], dims: Sequence[int | str | None]) -> bool:
    """Whether ``shape`` is one that ``dims`` allow."""
    return len(shape) == len(dims) and all(
        not isinstance(dim, int) or dim == have for have, dim in zip(shape, dims, strict=True)
    )


def fits_beside(axis: int, shape: Sequence[int], dims: Sequence[int | str | None]) -> bool:
    """Whether ``shape`` is one that ``dims`` allow, whatever its length along ``axis``."""
    return (
        len(shape) == len(dims) > axis
        and fits(shape[:axis], dims[:axis])
        and fits(shape[axis + 1 :], dims[axis + 1 :])
    )


def without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """``shape`` less its axes of length 1."""
    return tuple(dim for dim in shape if dim != 1)


def remedy(shape: tuple[int, ...], spec: InputSpec) -> str:
    """What to do about a shape that does not fit; notices channels on the wrong side."""
    if len(shape) == len(spec.shape) == 4:
        if fits((shape[0], shape[3], *shape[1:3])[1:], spec.shape[1:]):
            return "the channels come last: set 'layout: nchw', or transpose the data"
        if fits((shape[0], *shape[2:], shape[1])[1:], spec.shape[1:]):
            return "the channels come first: set 'layout: nhwc', or transpose the data"
        if (color := _other_color(shape, spec)) is not None:
            return f"set 'color: {color}' in the preprocessing spec, or give such images"
        height, width = spec.shape[1:3] if spec.shape[3] in (1, 3) else spec.shape[2:]
        if isinstance(height, int) and isinstance(width, int):
            return f"for images set crop or letterbox to [{height}, {width}]; reshape other data"
    return "resize or reshape the data to fit"


def _other_color(shape: tuple[int, ...], spec: InputSpec) -> str | None:
    """The colour that the input wants where it is grey and the images are not, or the reverse."""
    colors = {(3, 1): "gray", (1, 3): "rgb"}
    pairs = [(shape[axis], spec.shape[axis]) for axis in (1, 3)]
    return next((color for (have, want), color in colors.items() if (have, want) in pairs), None)
