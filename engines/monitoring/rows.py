"""One sample of a request: of a batch one row, of the rest all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.passport import Passport

__all__ = ["Axes", "axes_of", "row_of"]

Axes = Mapping[str, int | None]
"""Input → axis along which samples lie; None where every sample brings the whole input."""


def axes_of(passport: Passport) -> Axes:
    """As the build found them; an input that it says nothing of is taken whole."""
    axes: Axes = (passport.sample_axes or {}).get("axes", {})
    return axes


def row_of(arrays: Mapping[str, Any], axes: Axes, number: int) -> dict[str, NDArray[Any]] | None:
    """Views of one sample, its axis kept with a length of one.

    Args:
        arrays: of a request that was checked.
        axes: where samples lie.
        number: any; it is taken modulo the number of samples.

    Returns:
        The sample; None where an input lies on another device, or the request is empty.
    """
    row: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or not array.size:
            return None
        axis = axes.get(name)
        if axis is not None and array.shape[axis] > 1:
            at = number % array.shape[axis]
            array = array[(slice(None),) * axis + (slice(at, at + 1),)]
        row[name] = array
    return row
