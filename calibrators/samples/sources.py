"""Sources of samples that know their number: image files, random data; and subsets of them.

A source knows how many samples it has and reads any ascending subset of them; slices and limits are
subsets, so what is left out is never decoded.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from artefacts.errors import DataError
from calibrators.preprocessing.images import open_image
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.axes import resolved
from calibrators.samples.fit import check_kind, fit_array, remedy
from calibrators.samples.folders import FileList
from calibrators.samples.input_names import image_input
from calibrators.samples.samples import InputSpec, Sample, Samples, check_slice

__all__ = ["Chosen", "ImageFiles", "RandomRows", "Source"]


class Source(Protocol):
    """What :class:`Chosen` needs: a number of samples, and any ascending subset of them."""

    path: str
    preprocess: Preprocess | None
    unlabelled: str
    unused: str
    classes: tuple[str, ...]

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Iterator[Sample]:
        """The samples at ascending ``indices``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A subset of a source's samples; see :class:`calibrators.samples.Samples`."""

    source: Source
    indices: Sequence[int]

    @classmethod
    def of(cls, source: Source, limit: int | None) -> Chosen:
        """All samples, or ``limit`` of them evenly spread, since folders are sorted by class."""
        count = len(source)
        if limit is None or limit >= count:
            return cls(source=source, indices=range(count))
        return cls(source=source, indices=[i * count // limit for i in range(limit)])

    @property
    def path(self) -> str:
        """Where the samples come from."""
        return self.source.path

    @property
    def preprocess(self) -> Preprocess | None:
        """The spec that is applied."""
        return self.source.preprocess

    @property
    def unlabelled(self) -> str:
        """Why there are no labels, or empty."""
        return self.source.unlabelled

    @property
    def unused(self) -> str:
        """How much else lies in the folder."""
        return self.source.unused

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label."""
        return self.source.classes

    def __iter__(self) -> Iterator[Sample]:
        return self.source.read(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: slice) -> Samples:
        return replace(self, indices=self.indices[check_slice(rows)])


class ImageFiles:
    """Image files, decoded a few ahead by threads (Pillow releases the interpreter lock)."""

    def __init__(
        self, listed: FileList, *, inputs: Sequence[InputSpec], preprocess: Preprocess
    ) -> None:
        inputs = resolved(inputs)
        target = image_input(preprocess, inputs)
        others = [spec.name for spec in inputs if spec.name != target]
        if target is None or others:
            raise DataError(
                f"images of {listed.root} feed one input, expected data for "
                f"{', '.join(spec.name for spec in inputs)}; give an .npz file or a Python loader, "
                "or name the image input with 'input' in the preprocessing spec"
            )
        _check_result(preprocess, inputs[0])
        self.path = str(listed.root)
        self.preprocess: Preprocess | None = preprocess
        self.unlabelled = "" if listed.labels is not None else listed.unlabelled
        self.classes = listed.classes
        self.unused = listed.unused
        self._listed, self._spec, self._prepare = listed, inputs[0], preprocess
        self._axis = None if len(inputs[0].shape) > len(preprocess.shape) else ...

    def __len__(self) -> int:
        return len(self._listed.files)

    def read(self, indices: Sequence[int]) -> Iterator[Sample]:
        """The samples at ascending ``indices``."""
        return _ahead(self._sample, indices)

    def _sample(self, index: int) -> Sample:
        image = open_image(self._listed.files[index])
        where = f"image {self._listed.files[index]}"
        try:
            array = self._prepare(image)
        except DataError as err:
            raise DataError(f"{where}: {err}") from err
        labels = self._listed.labels
        return Sample(
            inputs={self._spec.name: fit_array(array[self._axis], self._spec, where=where)},
            name=self._listed.names[index],
            label=None if labels is None else labels[index],
            size=(image.height, image.width),
        )


def _check_result(preprocess: Preprocess, spec: InputSpec) -> None:
    """Refuse a spec whose result cannot fit, before anything is decoded."""
    where = "the result of the preprocessing spec"
    check_kind(np.dtype(preprocess.dtype), spec, where=where)
    made = preprocess.shape
    wanted = spec.shape if len(spec.shape) == len(made) else spec.shape[1:]
    if len(made) != len(wanted) or any(
        have != want
        for have, want in zip(made, wanted, strict=True)
        if have is not None and isinstance(want, int)
    ):
        shown = ", ".join("?" if dim is None else str(dim) for dim in made)
        raise DataError(
            f"{where} has shape [1, {shown}], expected one for input {spec}; "
            f"{remedy((1, *(dim or 0 for dim in made)), spec)}"
        )


def _ahead(read: Callable[[int], Sample], indices: Sequence[int]) -> Iterator[Sample]:
    """``read`` of each index in order, by threads that stay a bounded number of samples ahead."""
    threads = min(4, os.cpu_count() or 1)
    pending: deque[Future[Sample]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="samples") as pool:
        try:
            for index in indices:
                pending.append(pool.submit(read, index))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class RandomRows:
    """Random samples, for a first build without data: normal floats, integers 0 and 1."""

    preprocess: Preprocess | None = None
    unlabelled = "random samples have no labels"
    unused = ""
    classes: tuple[str, ...] = ()

    def __init__(self, inputs: Sequence[InputSpec], count: int, seed: int) -> None:
        self.path = f"random data (seed {seed})"
        self._inputs, self._count, self._seed = resolved(inputs), count, seed
        self._shapes = {spec.name: _static(spec) for spec in self._inputs}

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Sequence[int]) -> Iterator[Sample]:
        """The samples at ``indices``, each from a generator of its own."""
        for index in indices:
            rng = np.random.default_rng([self._seed, index])
            yield Sample(
                inputs={
                    spec.name: (
                        rng.standard_normal(self._shapes[spec.name])
                        if spec.dtype.kind in "fV"
                        else rng.integers(0, 2, self._shapes[spec.name])
                    ).astype(spec.dtype)
                    for spec in self._inputs
                },
                name=f"random#{index}",
            )


def _static(spec: InputSpec) -> tuple[int, ...]:
    dims = [1 if axis == spec.axis else dim for axis, dim in enumerate(spec.shape)]
    if not all(isinstance(dim, int) for dim in dims):
        raise DataError(
            f"random data for input {spec} needs a fixed shape, expected no dynamic dimension but "
            "the batch; give real samples with --calib-data"
        )
    return tuple(int(dim) for dim in dims if isinstance(dim, int))
