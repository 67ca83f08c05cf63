"""Samples in .npy and .npz files: the rows of one file, or one or more in each of many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.arrays import ArrayFile, open_arrays
from calibrators.samples.feeds import FeedPlan, plan_feed
from calibrators.samples.folders import FileList
from calibrators.samples.labels import LABEL_ARRAYS, class_names
from calibrators.samples.samples import InputSpec, Sample

__all__ = ["ArrayFiles"]


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    name: str
    arrays: dict[str, ArrayFile]
    plan: FeedPlan
    labels: NDArray[Any] | None

    def __len__(self) -> int:
        return 1 if self.plan.rows is None else self.plan.rows

    def read(self, indices: Sequence[int]) -> Iterator[Sample]:
        columns = [self._column(name, indices) for name in self.plan.plans]
        for index, *values in zip(indices, *columns, strict=True):
            single = self.plan.rows is None
            where = f"array file {self.path}" + ("" if single else f" sample {index}")
            fed = self.plan.feed(dict(zip(self.plan.plans, values, strict=True)), where=where)
            yield Sample(
                inputs=fed,
                name=self.name if single else f"{self.name}#{index}",
                label=self._label(index),
            )

    def _column(self, name: str, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
        array = self.arrays[self.plan.names[name]]
        plan = self.plan.plans[name]
        if self.plan.rows is None or plan.kind == "whole":
            return iter([array.read()] * len(indices))
        if plan.axis:
            rows = np.moveaxis(array.read(), plan.axis, 0)
            return iter([rows[index] for index in indices])
        return array.rows(indices)

    def _label(self, index: int) -> int | NDArray[Any] | None:
        if self.labels is None:
            return None
        return label_of(self.labels if self.plan.rows is None else self.labels[index])


def label_of(value: NDArray[Any] | np.generic) -> int | NDArray[Any]:
    """A single integer as a Python int, anything else as an array."""
    array = np.asarray(value)
    return int(array.item()) if array.size == 1 and array.dtype.kind in "iub" else array


class ArrayFiles:
    """A :class:`calibrators.samples.sources.Source` of array files."""

    def __init__(
        self,
        listed: FileList,
        *,
        inputs: Sequence[InputSpec],
        preprocess: Preprocess | None,
        path: Path,
    ) -> None:
        self.path = str(path)
        self.preprocess = preprocess
        self.classes = listed.classes or tuple(class_names(path.parent if path.is_file() else path))
        self.unused = listed.unused
        self._folder_labels = listed.labels
        self._files = [
            _open(file, name, inputs, preprocess)
            for file, name in zip(listed.files, listed.names, strict=True)
        ]
        self._ends = np.cumsum([len(file) for file in self._files])
        self.unlabelled = ""
        if listed.labels is None and any(file.labels is None for file in self._files):
            self.unlabelled = (
                f"samples of {path} have no labels, expected an array named "
                f"{', '.join(LABEL_ARRAYS[:4])} in the .npz file, or labels.npy beside the .npy; "
                "add it"
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, indices: Sequence[int]) -> Iterator[Sample]:
        """The samples at ascending ``indices``."""
        chosen = np.asarray(indices, np.int64)
        if not chosen.size:
            return
        numbers = np.searchsorted(self._ends, chosen, side="right")
        files, firsts = np.unique(numbers, return_index=True)
        for number, part in zip(files, np.split(chosen, firsts[1:]), strict=True):
            start = self._ends[number] - len(self._files[number])
            for sample in self._files[number].read([int(index) for index in part - start]):
                if sample.label is None and self._folder_labels is not None:
                    yield replace(sample, label=self._folder_labels[number])
                else:
                    yield sample


def _open(
    path: Path, name: str, inputs: Sequence[InputSpec], preprocess: Preprocess | None
) -> _File:
    arrays = open_arrays(path)
    plan = plan_feed(
        {key: (array.shape, array.dtype) for key, array in arrays.items()},
        inputs,
        preprocess=preprocess,
        where=f"array file {path}",
    )
    labels = _beside(path, plan.rows) if plan.labels is None else arrays[plan.labels].read()
    return _File(path=path, name=name, arrays=arrays, plan=plan, labels=labels)


def _beside(path: Path, rows: int | None) -> NDArray[Any] | None:
    """Labels for ``images.npy`` in ``labels.npy``, for ``x_test.npy`` in ``y_test.npy``.

    A file of another length belongs to other samples.
    """
    if path.suffix.lower() != ".npy" or rows is None:
        return None
    stems = [f"y{path.stem[1:]}"] * path.stem.startswith(("x", "X")) + list(LABEL_ARRAYS)
    for beside in (path.with_name(f"{stem}.npy") for stem in stems):
        if beside.is_file() and beside != path:
            labels = open_arrays(beside)[""]
            if labels.shape[:1] == (rows,):
                return labels.read()
    return None
