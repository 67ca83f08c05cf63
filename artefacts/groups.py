"""Files that belong together: all of them are replaced, or none is, whenever the process dies.

No file system renames two files at once. So the new files are written and synced first, then a
record says which takes whose place (``.model.engine.group``, the moment it counts), then they are
renamed, then the record goes. A process that is killed in between leaves a record, and whoever
comes next finishes what it says.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from artefacts.errors import InputError
from artefacts.faults import writing
from artefacts.files import make_folder, read_bounded, sync_file, sync_folder, write_atomic
from artefacts.litter import new_part

try:
    import fcntl
except ImportError:  # no POSIX: writers do not exclude each other
    fcntl = None  # type: ignore[assignment]

__all__ = ["finish_group", "folder_lock", "replace_group"]

_LIMIT_BYTES = 64 << 10
_held: set[tuple[int, str]] = set()  # thread and folder


@contextmanager
def replace_group(
    first: str | Path,
    *others: str | Path,
    group: str | Path | None = None,
    gone: Sequence[str | Path] = (),
) -> Iterator[tuple[Path, ...]]:
    """Yield a temporary path for each of several files; rename all of them on success.

    Args:
        first: a file.
        others: files in the same folder.
        group: the file that names the group, for :func:`finish_group`; None for ``first``.
        gone: files in that folder that do not fit the new ones and are removed with the rename.

    Raises:
        InputError: a file cannot be written.
    """
    paths = [Path(first), *map(Path, others)]
    folder = paths[0].parent
    make_folder(paths[0])
    named = Path(first if group is None else group)
    finish_group(named)
    with ExitStack() as stack:
        for path in reversed(paths):
            stack.enter_context(writing(path))
        parts = tuple(stack.enter_context(new_part(path)) for path in paths)
        yield parts
        for part in parts:
            sync_file(part)
        replaced = {part.name: path.name for part, path in zip(parts, paths, strict=True)}
        record = {"replace": replaced, "remove": [Path(path).name for path in gone]}
        with folder_lock(folder):
            _finish(_record(named))
            write_atomic(_record(named), json.dumps(record).encode())
            _finish(_record(named))


def finish_group(group: str | Path) -> bool:
    """Do what a process that was killed in the middle of a rename had left to do.

    Returns:
        Whether there was something, and it is done. A folder that may not be written to stays.
    """
    record = _record(Path(group))
    if not record.is_file():
        return False
    with suppress(OSError, InputError), folder_lock(record.parent):
        _finish(record)
        return True
    return False


@contextmanager
def folder_lock(folder: str | Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock under which groups of a folder are renamed.

    Args:
        folder: of the files.
        shared: to read: others may, too, and no group is renamed meanwhile.
    """
    folder = Path(folder)
    key = (threading.get_ident(), str(folder.resolve()))
    if fcntl is None or key in _held:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems lock no folder
            fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        _held.add(key)
        yield
    finally:
        _held.discard(key)
        os.close(handle)


def _record(group: Path) -> Path:
    return group.with_name(f".{group.name}.group")


def _finish(record: Path) -> None:
    """Rename what the record says and is not renamed yet."""
    if not record.is_file():
        return
    replace, remove = _read(record)
    for part, name in replace.items():
        with suppress(FileNotFoundError):
            record.with_name(part).replace(record.with_name(name))
    for name in remove:
        record.with_name(name).unlink(missing_ok=True)
    sync_folder(record.parent)
    record.unlink(missing_ok=True)


def _read(record: Path) -> tuple[dict[str, str], list[str]]:
    """What to rename and to remove; nothing where the record is none of ours."""
    try:
        content = json.loads(read_bounded(record, limit_bytes=_LIMIT_BYTES, what="record"))
        replace, remove = dict(content["replace"]), list(content["remove"])
        names = [*replace, *replace.values(), *remove]
    except (InputError, ValueError, KeyError, TypeError, RecursionError):
        return {}, []
    plain = all(isinstance(name, str) and name == Path(name).name for name in names)
    parts = plain and all(part.startswith(".") and part.endswith(".part") for part in replace)
    return (replace, remove) if parts else ({}, [])
