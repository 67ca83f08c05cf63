"""Labels in files beside the samples: labels.json, labels.txt, classes.txt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.documents import parse_json
from artefacts.errors import DataError, InputError
from artefacts.files import read_bounded
from artefacts.texts import shortened, shown

__all__ = ["LABEL_ARRAYS", "LABEL_FILES", "Label", "class_names", "labels_beside", "read_text"]

Label = int | NDArray[Any]
"""A class index, or an array where a label is more than that."""

LABEL_ARRAYS = ("labels", "label", "y", "Y", "targets", "target")
"""Names of arrays that are labels, not inputs."""

LABEL_FILES = ("labels.json", "labels.txt", "classes.txt")

_LIMIT_BYTES = 1 << 28


def class_names(root: Path) -> list[str]:
    """Lines of ``classes.txt`` in the folder or beside it; empty without one."""
    for place in (root, root.parent):
        path = place / "classes.txt"
        if path.is_file():
            return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return []


def labels_beside(root: Path, names: Sequence[str], classes: list[str]) -> list[Label] | None:
    """The label of each file from ``labels.json`` or ``labels.txt``; None without such a file.

    A file beside the folder may belong to a sibling, so there it counts only if it names one of
    ours (or, without names, has as many lines).

    Args:
        root: the folder of samples.
        names: files relative to it; the table may have these or the bare file names.
        classes: names by index; filled from the labels where they are names and it is empty.

    Raises:
        DataError: a file without label, or a label that is no class.
    """
    for place in (root, root.parent):
        for name, read in (("labels.json", _from_json), ("labels.txt", _from_text)):
            path = place / name
            if path.is_file():
                labels = read(path, names, classes, required=place == root)
                if labels is not None:
                    return labels
    return None


def _from_json(
    path: Path, names: Sequence[str], classes: list[str], *, required: bool
) -> list[Label] | None:
    """``{file name: class index, class name, or real values}``."""
    try:
        table = parse_json(read_text(path).encode())
    except DataError:
        raise
    except ValueError as err:
        why = shortened(str(err))
        raise DataError(
            f"labels {path} is not JSON ({why}), expected {{file name: class}}; correct it"
        ) from err
    if not isinstance(table, dict):
        raise DataError(
            f"labels {path} holds a {type(table).__name__}, expected {{file name: class}}; "
            "correct it"
        )
    return _looked_up(path, table, names, classes, required=required)


def _from_text(
    path: Path, names: Sequence[str], classes: list[str], *, required: bool
) -> list[Label] | None:
    """Lines ``file name label``, or one label a line in the order of the sorted files."""
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    if lines and all(len(line) >= 2 for line in lines):
        table = {" ".join(line[:-1]): line[-1] for line in lines}
        return _looked_up(path, table, names, classes, required=required)
    if len(lines) != len(names):
        if not required:
            return None
        raise DataError(
            f"labels {path} has {len(lines)} lines, expected {len(names)}, one for each file in "
            "sorted order; correct it or write 'file label' lines"
        )
    return _indices(path, [line[0] for line in lines], classes)


def _looked_up(
    path: Path,
    table: Mapping[str, Any],
    names: Sequence[str],
    classes: list[str],
    *,
    required: bool,
) -> list[Label] | None:
    values = [table.get(name, table.get(name.rpartition("/")[2])) for name in names]
    missing = [name for name, value in zip(names, values, strict=True) if value is None]
    if not missing:
        return _indices(path, values, classes)
    if not required and len(missing) == len(names):
        return None
    raise DataError(
        f"labels {path} has no entry for {missing[0]} (nor for {len(missing) - 1} more), expected "
        f"one for each of {len(names)} files; add them"
    )


def _indices(path: Path, values: Sequence[Any], classes: list[str]) -> list[Label]:
    if not classes and all(isinstance(value, str) and not _is_index(value) for value in values):
        classes.extend(sorted(set(values)))
    position = {name: index for index, name in enumerate(classes)}
    return [_index(path, value, position) for value in values]


def _index(path: Path, value: Any, classes: Mapping[str, int]) -> Label:
    if isinstance(value, str) and value in classes:
        return classes[value]
    if isinstance(value, str) and _is_index(value):
        return int(value)
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, (float, list)):
        return _values(path, value)
    raise DataError(
        f"labels {path} holds {shown(value)}, expected class indices from 0, names of classes.txt "
        "or real values (of a regression); correct it"
    )


def _values(path: Path, value: float | list[Any]) -> NDArray[np.float64]:
    """What a regression is to give: one real value, or a list of them."""
    entries = value if isinstance(value, list) else [value]
    if not entries or not all(type(entry) in (int, float) for entry in entries):
        raise DataError(
            f"labels {path} holds {shown(value)}, expected a list of numbers; correct it"
        )
    return np.array(entries, np.float64)


def _is_index(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) < 10


def read_text(path: Path) -> str:
    """A text file of labels or names.

    Raises:
        DataError: too large, unreadable, or not UTF-8.
    """
    try:
        return read_bounded(path, limit_bytes=_LIMIT_BYTES, what="text file").decode("utf-8-sig")
    except (InputError, UnicodeDecodeError) as err:
        raise DataError(f"{path} cannot be read ({err}), expected UTF-8 text; correct it") from err
