"""A folder of samples: which files count, in which order, and which labels they carry."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artefacts.errors import DataError, InputError
from artefacts.files import read_bounded

__all__ = ["FileList", "list_folder"]

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "calib", "calibration"}
_LABELS_LIMIT_BYTES = 1 << 28


@dataclass(frozen=True, kw_only=True)
class FileList:
    """Files of samples in the order they are read.

    Attributes:
        root: the folder.
        files: paths.
        names: the same, relative to the folder, with ``/``: for messages and labels.
        labels: class index by file, or None where there are no labels.
        classes: class names by index, empty where unknown.
        unlabelled: why there are no labels; calibration needs none, so it is no error yet.
    """

    root: Path
    files: tuple[Path, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()
    unlabelled: str = "no labels"


def list_folder(root: Path, suffixes: Sequence[str]) -> FileList:
    """List the files of a folder, or of its class folders, sorted by name.

    Files directly in the folder come first: where there are any, its subfolders are left alone.
    Else every subfolder is a class, its label the position of its name in sorted order.
    Hidden files (``.DS_Store``, ``._x.jpg``) do not count. Labels from ``labels.json`` or
    ``labels.txt`` in the folder or beside it win over folders.

    Raises:
        DataError: no such files, a link out of the folder, or train/val folders instead of classes.
    """
    direct = _files(root, root, suffixes, deep=False)
    folders: list[str] = []
    if direct:
        files = direct
    else:
        folders = sorted(
            p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")
        )
        files = [p for name in folders for p in _files(root, root / name, suffixes, deep=True)]
    if not files:
        raise _empty(root, suffixes)
    names = tuple(path.relative_to(root).as_posix() for path in files)
    listed = FileList(root=root, files=tuple(files), names=names)
    return _labelled(listed, folders)


def _files(root: Path, folder: Path, suffixes: Sequence[str], *, deep: bool) -> list[Path]:
    inside = root.resolve()
    found = []
    for path in sorted(folder.rglob("*") if deep else folder.iterdir()):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if hidden or path.suffix.lower() not in suffixes or not path.is_file():
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise DataError(
                f"{path} is a link to {path.resolve()}, expected files inside {root}; copy it, or "
                "list the files in a text file and give that"
            )
        found.append(path)
    return found


def _empty(root: Path, suffixes: Sequence[str]) -> DataError:
    others = sorted({p.suffix.lower() for p in root.rglob("*") if p.is_file() and p.suffix})
    found = f"only files ending in {', '.join(others[:5])}" if others else "no files"
    return DataError(
        f"folder {root} has {found}, expected samples ending in {', '.join(suffixes)}; "
        "check the path or convert them"
    )


def _labelled(listed: FileList, folders: list[str]) -> FileList:
    classes = _class_names(listed.root)
    try:
        labels = _from_files(listed, classes)
    except DataError as err:
        return replace(listed, unlabelled=str(err))
    if labels is not None:
        return replace(listed, labels=tuple(labels), classes=tuple(classes))
    if not folders:
        return replace(
            listed,
            unlabelled=f"samples of {listed.root} have no labels, expected one folder per class, "
            "labels.json {file: class} or labels.txt in the folder or beside it; add one",
        )
    splits = sorted(set(map(str.lower, folders)) & _SPLITS)
    if splits:
        raise DataError(
            f"folder {listed.root} has subfolders {', '.join(splits)}, expected images or one "
            f"folder per class; give one of them, such as {listed.root / splits[0]}"
        )
    indices = {name: index for index, name in enumerate(folders)}
    labels = [indices[name.split("/")[0]] for name in listed.names]
    return replace(listed, labels=tuple(labels), classes=tuple(folders))


def _from_files(listed: FileList, classes: list[str]) -> list[int] | None:
    """Labels of a file in the folder, or beside it: there it may belong to a sibling folder."""
    for place in (listed.root, listed.root.parent):
        for name, read in (("labels.json", _from_json), ("labels.txt", _from_text)):
            path = place / name
            if path.is_file():
                labels = read(path, listed, classes, required=place == listed.root)
                if labels is not None:
                    return labels
    return None


def _class_names(root: Path) -> list[str]:
    for place in (root, root.parent):
        path = place / "classes.txt"
        if path.is_file():
            return [line.strip() for line in _text(path).splitlines() if line.strip()]
    return []


def _from_json(
    path: Path, listed: FileList, classes: list[str], *, required: bool
) -> list[int] | None:
    """``{file name: class index or name}``."""
    try:
        table = json.loads(_text(path))
    except (ValueError, RecursionError) as err:
        raise DataError(
            f"labels {path} is not JSON ({err}), expected {{file name: class}}; correct it"
        ) from err
    if not isinstance(table, dict):
        raise DataError(
            f"labels {path} holds a {type(table).__name__}, expected {{file name: class}}; "
            "correct it"
        )
    return _looked_up(path, table, listed, classes, required=required)


def _from_text(
    path: Path, listed: FileList, classes: list[str], *, required: bool
) -> list[int] | None:
    """Lines ``file name label``, or one label a line in the order of the sorted files."""
    lines = [line.split() for line in _text(path).splitlines() if line.strip()]
    if lines and all(len(line) >= 2 for line in lines):
        table = {" ".join(line[:-1]): line[-1] for line in lines}
        return _looked_up(path, table, listed, classes, required=required)
    if len(lines) != len(listed.files):
        if not required:
            return None
        raise DataError(
            f"labels {path} has {len(lines)} lines, expected {len(listed.files)}, one for each "
            f"file of {listed.root} in sorted order; correct it or write 'file label' lines"
        )
    return [_label(line[0], path, classes) for line in lines]


def _looked_up(
    path: Path, table: Mapping[str, Any], listed: FileList, classes: list[str], *, required: bool
) -> list[int] | None:
    values = [table.get(name, table.get(name.split("/")[-1])) for name in listed.names]
    if not required and all(value is None for value in values):
        return None
    for name, value in zip(listed.names, values, strict=True):
        if value is None:
            raise DataError(
                f"labels {path} has no entry for {name}, expected one for each of the "
                f"{len(values)} files of {listed.root}; add it"
            )
    if not classes and all(isinstance(v, str) and not _is_index(v) for v in values):
        classes[:] = sorted({str(value) for value in table.values()})
    return [_label(value, path, classes) for value in values]


def _label(value: Any, path: Path, classes: list[str]) -> int:
    if isinstance(value, str) and value in classes:
        return classes.index(value)
    if isinstance(value, str) and _is_index(value):
        return int(value)
    if type(value) is int and value >= 0:
        return value
    raise DataError(
        f"labels {path} holds {value!r}, expected class indices from 0 or names of classes.txt; "
        "correct it"
    )


def _is_index(value: str) -> bool:
    return value.isascii() and value.isdigit()


def _text(path: Path) -> str:
    try:
        return read_bounded(path, limit_bytes=_LABELS_LIMIT_BYTES, what="labels").decode(
            "utf-8-sig"
        )
    except (InputError, UnicodeDecodeError) as err:
        raise DataError(f"labels {path} cannot be read ({err}), expected UTF-8 text") from err
