"""How the arrays of a data source become the inputs of a model: names, axes, dtypes, finite values.

The rules are the same for .npy, .npz and Python loaders, and each is decided from shape and dtype
alone, before any value is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import DataError
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.axes import resolved
from calibrators.samples.fit import check_kind, fit_array
from calibrators.samples.input_names import image_input, match_names
from calibrators.samples.labels import LABEL_ARRAYS
from calibrators.samples.plans import Plan, plan_axes
from calibrators.samples.samples import InputSpec

__all__ = ["FeedPlan", "plan_feed"]


@dataclass(frozen=True, kw_only=True)
class FeedPlan:
    """How the arrays of one file, or of one yielded dict, become samples.

    Attributes:
        names: input name → array name.
        plans: input name → how.
        rows: number of samples; None where all arrays together are one sample.
        labels: name of the array of labels, or None.
    """

    names: dict[str, str]
    plans: dict[str, Plan]
    rows: int | None
    labels: str | None

    def feed(self, values: Mapping[str, NDArray[Any]], *, where: str) -> dict[str, NDArray[Any]]:
        """The model's inputs from one row of each array (or from the arrays, without rows).

        Raises:
            DataError: a value does not fit; ``where`` names the sample.
        """
        return {name: self._input(name, values[name], where) for name in self.plans}

    def _input(self, name: str, value: NDArray[Any], where: str) -> NDArray[Any]:
        plan = self.plans[name]
        return fit_array(plan.convert(value), plan.spec, where=f"{where} ({name})")


def plan_feed(
    arrays: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    inputs: Sequence[InputSpec],
    *,
    preprocess: Preprocess | None,
    where: str,
) -> FeedPlan:
    """Decide from shapes and dtypes alone how arrays become samples.

    Raises:
        DataError: an input without an array, an array that does not fit, or unequal lengths.
    """
    inputs = resolved(inputs)
    names = match_names(list(arrays), inputs, where=where)
    image = image_input(preprocess, inputs)
    plans = {
        spec.name: _plan_input(
            *arrays[names[spec.name]],
            spec,
            preprocess=preprocess,
            is_image=spec.name == image,
            where=f"{where} ({names[spec.name]})" if names[spec.name] else where,
        )
        for spec in inputs
    }
    used = set(names.values())
    rows = _rows(plans, where=where)
    labels = next((key for key in LABEL_ARRAYS if key in arrays and key not in used), None)
    shape = arrays[labels][0] if labels is not None else ()
    if rows is not None and labels is not None and shape[:1] != (rows,):
        raise DataError(
            f"{where} ({labels}) has shape {list(shape)}, expected {rows} labels, one for each "
            "sample; save them again"
        )
    return FeedPlan(names=names, plans=plans, rows=rows, labels=labels)


def _rows(plans: Mapping[str, Plan], *, where: str) -> int | None:
    """The number of samples, or None where the arrays together are one."""
    kinds = {plan.kind for plan in plans.values()}
    if kinds == {"whole"}:
        return None
    # One value for all samples is fine where the model says that this input has no batch axis.
    batched = all(plan.spec.axis == 0 for plan in plans.values())
    counts = {name: plan.count for name, plan in plans.items() if plan.kind != "whole" or batched}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(
            f"{where} has a different number of samples for each input ({found}), expected the "
            "same for all; save them again"
        )
    count = next(iter(counts.values()))
    if count == 0:
        raise DataError(f"{where} has 0 samples, expected at least 1; add some")
    return count


def _plan_input(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    spec: InputSpec,
    *,
    preprocess: Preprocess | None,
    is_image: bool,
    where: str,
) -> Plan:
    if preprocess is not None and spec.name in preprocess.inputs:
        return plan_axes(shape, spec, preprocess.inputs[spec.name], where)
    if preprocess is not None and is_image and dtype == np.uint8:
        return _plan_image(shape, spec, preprocess, where)
    check_kind(dtype, spec, where=where)
    return plan_axes(shape, spec, np.asarray, where)


def _plan_image(
    shape: tuple[int, ...], spec: InputSpec, preprocess: Preprocess, where: str
) -> Plan:
    """uint8 (N, H, W, C), (N, H, W), (N, C, H, W), or one image (H, W, 3) or (H, W)."""
    # A model may take a single image, without a batch axis.
    batched = len(spec.shape) > len(preprocess.shape)
    if batched and spec.axis is None and spec.shape[0] != 1:
        return _plan_images(shape, spec, preprocess, where)
    many = "rows" if batched else "items"

    def prepare(pixels: NDArray[Any]) -> NDArray[Any]:
        array = preprocess(np.ascontiguousarray(pixels))
        return array[None] if batched else array

    def prepare_planes(pixels: NDArray[Any]) -> NDArray[Any]:
        return prepare(np.moveaxis(pixels, 0, -1))

    if len(shape) == 4 and shape[3] in (1, 3):
        return Plan(spec=spec, kind=many, count=shape[0], convert=prepare)
    if len(shape) == 4 and shape[1] in (1, 3):
        return Plan(spec=spec, kind=many, count=shape[0], convert=prepare_planes)
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 3):
        return Plan(spec=spec, kind="whole", count=1, convert=prepare)
    if len(shape) == 3:
        return Plan(spec=spec, kind=many, count=shape[0], convert=prepare)
    raise _no_images(shape, where)


def _plan_images(
    shape: tuple[int, ...], spec: InputSpec, preprocess: Preprocess, where: str
) -> Plan:
    """uint8 (V, H, W, C) or (N, V, H, W, C): several images make one sample."""

    def prepare(images: NDArray[Any]) -> NDArray[Any]:
        return np.stack([preprocess(np.ascontiguousarray(image)) for image in images])

    if len(shape) == 4 and shape[3] in (1, 3):
        return Plan(spec=spec, kind="whole", count=1, convert=prepare)
    if len(shape) == 5 and shape[4] in (1, 3):
        return Plan(spec=spec, kind="items", count=shape[0], convert=prepare)
    raise _no_images(shape, where)


def _no_images(shape: tuple[int, ...], where: str) -> DataError:
    return DataError(
        f"{where} is uint8 {list(shape)}, expected images (N, H, W, C) with 1 or 3 channels for "
        f"the preprocessing spec; save them so"
    )
