"""Samples as a person has them in Python: paths, arrays, dicts, pairs with labels, iterables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from artefacts.errors import InputError

__all__ = ["is_array", "source_of"]

Loader = Callable[[], Iterable[Any]]
_LABELS = "labels"
_ONLY_INPUT = "x"  # a usual name, which the only input of a model takes


def source_of(value: Any, stem: Path) -> Path | Loader:
    """What ``open_samples`` takes, made of what was given.

    Args:
        value: a path; paths of files; an array (N, ...) for the only input; a dict of arrays with
            one row a sample; either of the two in a tuple with its labels; an iterable, e.g. a data
            loader, of what ``LoaderSamples`` takes; or a function that gives one.
        stem: arrays and lists of paths are written beside it, and have to live as long as samples
            are read.

    Raises:
        InputError: it is something else, or two arrays of which the second may be labels or not.
    """
    if isinstance(value, (str, Path)):
        return Path(value)
    if callable(value):
        return value  # type: ignore[no-any-return] # a loader, as it is
    if isinstance(value, tuple) and len(value) == 2 and _holds_rows(value[0]):
        return _saved(_with_labels(*value), stem)
    if isinstance(value, Mapping):
        return _saved(value, stem)
    if is_array(value):
        path = stem.with_suffix(".npy")
        np.save(path, np.asarray(value), allow_pickle=False)
        return path
    if not isinstance(value, Iterable):
        raise InputError(
            f"samples are of type {type(value).__name__}, expected a path, an array, a dict of "
            "arrays, an iterable of dicts or a function that gives one; convert them"
        )
    # An iterator is read once; samples are read in several passes.
    feeds = list(value) if isinstance(value, Iterator) else value
    if isinstance(feeds, Sequence) and feeds and all(isinstance(f, (str, Path)) for f in feeds):
        path = stem.with_suffix(".txt")
        path.write_text("".join(f"{Path(file).resolve()}\n" for file in feeds), encoding="utf-8")
        return path
    return lambda: feeds


def is_array(value: Any) -> bool:
    """Whether NumPy reads it as an array by itself: of NumPy, torch, TensorFlow, a PIL image."""
    return hasattr(value, "__array__") or hasattr(value, "__array_interface__")


def _holds_rows(value: Any) -> bool:
    """Whether it is what labels belong to, and not one of two samples."""
    arrays = value.values() if isinstance(value, Mapping) else (value,)
    return all(is_array(array) and np.ndim(array) > 0 for array in arrays)


def _with_labels(rows: Any, labels: Any) -> dict[str, Any]:
    """One dict, as ``.npz`` files have labels."""
    if isinstance(rows, Mapping):
        return {**rows, _LABELS: labels}
    shape = np.shape(labels)
    if len(shape) > 1 and shape == np.shape(rows):
        raise InputError(
            f"samples are a tuple of two arrays of shape {list(shape)}, expected inputs and their "
            "labels; give a list where both are samples, or a dict with labels by that name"
        )
    return {_ONLY_INPUT: rows, _LABELS: labels}


def _saved(arrays: Mapping[str, Any], stem: Path) -> Path:
    path = stem.with_suffix(".npz")
    kept: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(path, **kept)
    return path
