"""How one array feeds one input, from its shape: which axis holds samples, what each becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import DataError
from calibrators.samples.fit import fits, fits_beside, remedy, without_ones
from calibrators.samples.samples import InputSpec

__all__ = ["Plan", "plan_axes"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one array feeds one input.

    Attributes:
        spec: the input.
        kind: ``rows`` (samples lie along the input's own axis of samples), ``items`` (along one
            more, each entry a whole input) or ``whole`` (the array is one sample's).
        count: samples; 1 for ``whole``.
        convert: from a row, an item or the whole array to what is fed, not yet cast and checked.
        axis: of the array, along which the samples lie.
    """

    spec: InputSpec
    kind: str
    count: int
    convert: Callable[[NDArray[Any]], NDArray[Any]]
    axis: int = 0


def plan_axes(
    shape: tuple[int, ...],
    spec: InputSpec,
    convert: Callable[[NDArray[Any]], NDArray[Any]],
    where: str,
) -> Plan:
    """Find the axis of samples. The first reading that fits wins; the exact ones come first.

    Args:
        shape: of the array.
        spec: the input, its axis of samples settled.
        convert: from numbers to what the input takes.
        where: names the array in messages.

    Raises:
        DataError: no reading fits.
    """
    rank, dims, count = len(spec.shape), spec.shape, shape[0] if shape else 1
    if spec.axis is None and fits(shape, dims):
        return Plan(spec=spec, kind="whole", count=1, convert=convert)
    # Inputs that each sample brings whole may be fixed to one row, and then an array has one each.
    axis = spec.axis if spec.axis is not None or dims[:1] != (1,) else 0
    if axis is not None and fits_beside(axis, shape, dims):
        if axis and shape[axis] == 1:
            return Plan(spec=spec, kind="whole", count=1, convert=convert)
        return Plan(
            spec=spec,
            kind="rows",
            count=shape[axis],
            convert=lambda row: np.expand_dims(convert(row), axis),
            axis=axis,
        )
    if rank and len(shape) == rank - 1 and fits(shape, _without(dims, axis or 0)):
        place = axis or 0
        return Plan(
            spec=spec,
            kind="whole",
            count=1,
            convert=lambda whole: np.expand_dims(convert(whole), place),
        )
    if len(shape) == rank + 1 and fits(shape[1:], dims):
        return Plan(spec=spec, kind="items", count=count, convert=convert)
    if fits(shape, dims):
        return Plan(spec=spec, kind="whole", count=1, convert=convert)
    found = _without_ones(shape, spec, axis, convert)
    if found is not None:
        return found
    raise DataError(
        f"{where} has shape {list(shape)}, expected one for input {spec}; {remedy(shape, spec)}"
    )


def _without_ones(
    shape: tuple[int, ...],
    spec: InputSpec,
    axis: int | None,
    convert: Callable[[NDArray[Any]], NDArray[Any]],
) -> Plan | None:
    """Axes of length 1 that one side lacks, e.g. (N, 49, 10) for an input [N, 1, 49, 10]."""
    rank, dims, count = len(spec.shape), spec.shape, shape[0] if shape else 1
    target = tuple(dim for dim in dims[1:] if isinstance(dim, int))
    if rank and len(target) == rank - 1:
        ones = without_ones(target)

        def reshape(values: NDArray[Any]) -> NDArray[Any]:
            return convert(values).reshape(-1, *target)

        if shape and without_ones(shape[1:]) == ones:
            kind = "whole" if axis is None else "rows"
            return Plan(spec=spec, kind=kind, count=1 if axis is None else count, convert=reshape)
        if without_ones(shape) == ones:
            return Plan(spec=spec, kind="whole", count=1, convert=reshape)
    return None


def _without(dims: tuple[int | str | None, ...], axis: int) -> tuple[int | str | None, ...]:
    return dims[:axis] + dims[axis + 1 :]
