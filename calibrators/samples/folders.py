"""Which files are samples, in which order, and which labels they carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from artefacts.errors import DataError
from artefacts.words import counted
from calibrators.samples.labels import (
    LABEL_ARRAYS,
    LABEL_FILES,
    Label,
    class_names,
    labels_beside,
    read_text,
)

__all__ = ["FileList", "list_folder", "list_text"]

_PARTS = frozenset(
    {"train", "training", "val", "valid", "validation", "test", "calib", "calibration", "eval"}
    | {"images", "img"}
)


@dataclass(frozen=True, kw_only=True)
class FileList:
    """Files of samples in the order they are read.

    Attributes:
        root: the folder, or the file that lists them.
        files: paths.
        names: the same relative to the folder, with ``/``: for messages and labels.
        labels: class index (or array) by file, or None where there are no labels.
        classes: class names by index, empty where unknown.
        unlabelled: why there are no labels; calibration needs none, so it is no error yet.
        unused: how much else lies there, ``2 files and 1 folder``; empty for nothing.
    """

    root: Path
    files: tuple[Path, ...]
    names: tuple[str, ...]
    labels: tuple[Label, ...] | None = None
    classes: tuple[str, ...] = ()
    unlabelled: str = ""
    unused: str = ""


def list_folder(root: Path, kinds: Sequence[Sequence[str]]) -> FileList:
    """List the files of a folder, or of its class folders, sorted by name.

    Where files lie directly in the folder, its subfolders are left alone. Else every subfolder is a
    class, its label the position of its name in sorted order. Hidden files (``.DS_Store``,
    ``._x.jpg``) do not count. Labels in ``labels.json`` or ``labels.txt`` win over folders.

    Args:
        root: the folder.
        kinds: suffixes of each kind of sample; the first kind that the folder has counts.

    Raises:
        DataError: no such files, a link out of the folder, or train/val folders instead of classes.
    """
    for suffixes in kinds:
        files = _files(root, root, suffixes, deep=False)
        folders: list[str] = []
        if not files:
            inside = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
            by_class = {p.name: _files(root, p, suffixes, deep=True) for p in inside}
            folders = sorted(name for name, found in by_class.items() if found)
            files = [file for name in folders for file in by_class[name]]
        if files:
            _check_classes(root, folders)
            names = tuple(path.relative_to(root).as_posix() for path in files)
            unused = _unused(root, files, folders)
            listed = FileList(root=root, files=tuple(files), names=names, unused=unused)
            return _labelled(listed, folders)
    raise _empty(root, [suffix for suffixes in kinds for suffix in suffixes])


def _check_classes(root: Path, folders: Sequence[str]) -> None:
    """Refuse subfolders that are parts of a data set; one among classes may be a class (train)."""
    parts = [name for name in folders if name.lower().rstrip("0123456789_-") in _PARTS]
    if parts and (len(parts) > 1 or len(parts) == len(folders)):
        raise DataError(
            f"folder {root} has subfolders {', '.join(parts)}, expected samples or one folder per "
            f"class; give one of them, such as {root / parts[0]}"
        )


def _files(root: Path, folder: Path, suffixes: Sequence[str], *, deep: bool) -> list[Path]:
    found = []
    for path in sorted(folder.rglob("*") if deep else folder.iterdir()):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        labels = path.suffix.lower() == ".npy" and path.stem in LABEL_ARRAYS
        if hidden or labels or path.suffix.lower() not in suffixes or not path.is_file():
            continue
        if not path.resolve().is_relative_to(root.resolve()):
            raise DataError(
                f"{path} is a link to {path.resolve()}, expected files inside {root}; copy it, or "
                "list the files in a .txt file, one a line, and give that"
            )
        found.append(path)
    return found


def _unused(root: Path, files: Sequence[Path], folders: Sequence[str]) -> str:
    """What lies beside the samples and is no label: a person may have meant it as samples."""
    used = frozenset(files)
    left = [path for path in root.iterdir() if path not in used and not path.name.startswith(".")]
    apart = [path for path in left if path.is_dir() and path.name not in folders]
    others = [path for path in left if path.is_file() and not _is_about_labels(path)]
    for name in folders:
        others += [
            path
            for path in (root / name).rglob("*")
            if path.is_file() and path not in used and not path.name.startswith(".")
        ]
    found = ((len(others), "file"), (len(apart), "folder"))
    return " and ".join(counted(number, thing) for number, thing in found if number)


def _is_about_labels(path: Path) -> bool:
    return path.name in LABEL_FILES or path.stem in LABEL_ARRAYS


def _empty(root: Path, suffixes: Sequence[str]) -> DataError:
    others = sorted({p.suffix.lower() for p in root.rglob("*") if p.is_file() and p.suffix})
    found = f"only files ending in {', '.join(others[:5])}" if others else "no files"
    return DataError(
        f"folder {root} has {found}, expected samples ending in {', '.join(suffixes)}; "
        "check the path or convert them"
    )


def _labelled(listed: FileList, folders: list[str]) -> FileList:
    classes = class_names(listed.root)
    try:
        labels = labels_beside(listed.root, listed.names, classes)
    except DataError as err:
        return replace(listed, unlabelled=str(err))
    if labels is not None:
        return replace(listed, labels=tuple(labels), classes=tuple(classes))
    if not folders:
        return replace(
            listed,
            unlabelled=f"samples of {listed.root} have no labels, expected one folder per class, "
            "or labels.json {file: class} or labels.txt in the folder or beside it; add one",
        )
    index = {name: position for position, name in enumerate(folders)}
    found = tuple(index[name.split("/")[0]] for name in listed.names)
    return replace(listed, labels=found, classes=tuple(folders))


def list_text(path: Path, suffixes: Sequence[str]) -> FileList:
    """Read a list of files: lines ``file`` or ``file label``, relative to the folder of the list.

    Raises:
        DataError: an empty list, a line that is no file, or one without a label among others.
    """
    lines = [line.strip() for line in read_text(path).splitlines()]
    entries = [_entry(line, suffixes) for line in lines if line and not line.startswith("#")]
    if not entries:
        raise DataError(f"list {path} has no lines, expected one file a line; add some")
    files = tuple(path.parent / name for name, _ in entries)
    for file in files:
        if not file.is_file():
            raise DataError(
                f"list {path} names {file}, expected a file that exists; paths are relative to "
                f"{path.parent}"
            )
    listed = FileList(root=path, files=files, names=tuple(name for name, _ in entries))
    labels = tuple(label for _, label in entries if label is not None)
    if len(labels) == len(files):
        return replace(listed, labels=labels, classes=tuple(class_names(path.parent)))
    return replace(
        listed,
        unlabelled=f"list {path} has {len(labels)} labels for {len(files)} files, expected lines "
        "'file label' for all; add them",
    )


def _entry(line: str, suffixes: Sequence[str]) -> tuple[str, int | None]:
    """A name may hold spaces: what follows is a label only if the rest ends like a sample."""
    name, _, last = line.rpartition(" ")
    if last.isascii() and last.isdigit() and Path(name.strip()).suffix.lower() in suffixes:
        return name.strip(), int(last)
    return line, None
