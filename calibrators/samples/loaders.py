"""Samples from Python: a function that yields ``{input name: array}``, in a file or in hand."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import DataError
from artefacts.files import sha256_bytes
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.array_samples import label_of
from calibrators.samples.feeds import plan_feed
from calibrators.samples.given import is_array
from calibrators.samples.labels import LABEL_ARRAYS
from calibrators.samples.samples import InputSpec, Sample, Samples, check_slice

__all__ = ["LoaderSamples", "load_function"]

Feed = Mapping[str, Any]


class LoaderSamples:
    """What a callable yields: dicts of arrays with a batch axis, as Polygraphy's users know.

    For a model of one input an array will do; and labels may stand beside either: ``(x, y)``.

    The callable is called anew for each pass, so that a generator function can be read twice.
    """

    def __init__(
        self,
        load: Callable[[], Iterable[Feed]],
        *,
        inputs: Sequence[InputSpec],
        preprocess: Preprocess | None,
        path: str,
        rows: slice = slice(0, None, 1),
    ) -> None:
        self.path = path
        self.preprocess = preprocess
        self.unlabelled = ""
        self.unused = ""
        self.classes: tuple[str, ...] = ()
        self._load, self._inputs, self._rows = load, tuple(inputs), rows

    def __len__(self) -> int:
        raise TypeError(f"the number of samples of {self.path} is known after reading them only")

    def __getitem__(self, rows: slice) -> Samples:
        rows, mine = check_slice(rows), self._rows
        stops = [] if mine.stop is None else [mine.stop]
        if rows.stop is not None:
            stops.append(mine.start + rows.stop * mine.step)
        start = mine.start + rows.start * mine.step
        return LoaderSamples(
            self._load,
            inputs=self._inputs,
            preprocess=self.preprocess,
            path=self.path,
            rows=slice(start, min(stops, default=None), mine.step * rows.step),
        )

    def __iter__(self) -> Iterator[Sample]:
        rows = self._rows
        return islice(self._samples(), rows.start, rows.stop, rows.step)

    def _samples(self) -> Iterator[Sample]:
        number = 0
        for feed in self._feeds():
            for sample in self._split(feed, number):
                yield sample
                number += 1
        if number == 0:
            raise DataError(
                f"{self.path} yields nothing, expected at least one {{input name: array}}; "
                "let it return a fresh iterator at each call"
            )

    def _feeds(self) -> Iterator[Feed]:
        with blame(self.path):
            yield from self._load()

    def _split(self, feed: Feed, number: int) -> Iterator[Sample]:
        arrays = _arrays(_named(feed, self._inputs), f"{self.path} sample {number}")
        plan = plan_feed(
            {name: (array.shape, array.dtype) for name, array in arrays.items()},
            self._inputs,
            preprocess=self.preprocess,
            where=f"{self.path} sample {number}",
        )
        labels = None if plan.labels is None else arrays[plan.labels]
        for row in range(1 if plan.rows is None else plan.rows):
            values = {
                name: arrays[plan.names[name]]
                if plan.rows is None or entry.kind == "whole"
                else np.moveaxis(arrays[plan.names[name]], entry.axis, 0)[row]
                for name, entry in plan.plans.items()
            }
            label = labels if labels is None or plan.rows is None else labels[row]
            yield Sample(
                inputs=plan.feed(values, where=f"{self.path} sample {number + row}"),
                name=str(number + row),
                label=None if label is None else label_of(label),
            )


class blame:  # noqa: N801 - used like a function
    """Turns what a user's code raises into our sentence; the cause stays for ``--debug``."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (Exception, SystemExit)) and not isinstance(error, DataError):
            raise DataError(
                f"{self._path} raised {type(error).__name__}: {error}, expected it to yield "
                "{input name: array}; mend it (--debug shows where)"
            ) from error


def _named(feed: Any, inputs: Sequence[InputSpec]) -> Any:
    """A feed by names, where it is an array for the only input, or has its labels beside it.

    Data loaders of PyTorch yield lists, ``[x, y]`` or ``[x]``.
    """
    listed = isinstance(feed, (tuple, list)) and len(feed) in (1, 2)
    if listed and not (isinstance(feed[0], Mapping) or is_array(feed[0])):
        return feed
    rows, *labels = feed if listed else [feed]
    if is_array(rows) and len(inputs) == 1:
        rows = {inputs[0].name: rows}
    if labels and isinstance(rows, Mapping):
        return {LABEL_ARRAYS[0]: labels[0], **rows}
    return rows


def _arrays(feed: Feed, where: str) -> dict[str, NDArray[Any]]:
    if not isinstance(feed, Mapping):
        raise DataError(
            f"{where} is of type {type(feed).__name__}, expected a dict {{input name: array}} (or, "
            "for a model of one input, an array); yield one for each batch"
        )
    arrays = {}
    for name, value in feed.items():
        if not isinstance(name, str):
            raise DataError(f"{where} has key {name!r}, expected the name of a model input")
        with blame(where):
            arrays[name] = np.asarray(value)
        if arrays[name].dtype.kind not in "biufV":
            raise DataError(
                f"{where} ({name}) is {type(value).__name__} ({arrays[name].dtype}), expected an "
                "array of numbers; yield numpy arrays"
            )
    return arrays


def load_function(path: Path, function: str) -> Callable[[], Iterable[Feed]]:
    """Run a user's Python file and return its loader. Its folder is importable from then on.

    Raises:
        DataError: no such file or function, or the file raises.
    """
    if not path.is_file():
        raise DataError(f"loader {path} does not exist, expected a Python file; check the path")
    # Two loaders may have one name; dataclasses of a module look it up among the imported ones.
    name = f"_loader_{sha256_bytes(str(path.resolve()).encode())[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DataError(f"loader {path} cannot be imported, expected a Python file; rename it")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.append(folder)
    sys.modules[name] = module
    with blame(f"loader {path}"):
        spec.loader.exec_module(module)
    load = getattr(module, function, None)
    if not callable(load):
        raise DataError(
            f"loader {path} has no function {function}(), expected one that yields "
            "{input name: array}; define it, or name another with FILE.py:FUNCTION"
        )
    return load  # type: ignore[no-any-return]
