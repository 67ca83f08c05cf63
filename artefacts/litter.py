"""Temporary files and folders whose maker died are told from those in use, and removed.

Whoever works on one holds a lock on it (``flock``), which the system gives back however the
process ends. So one that can be locked belongs to nobody.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from artefacts.errors import InputError

try:
    import fcntl
except ImportError:  # no POSIX: nothing is locked, nothing is swept
    fcntl = None  # type: ignore[assignment]

__all__ = ["job_lock", "new_part", "scratch_folder"]

_PREFIX = "int8-builder-"
_LOCK, _PART = ".lock", ".part"
_LONGEST_NAME = 200  # of the 255 bytes that file systems allow


@contextmanager
def new_part(path: Path) -> Iterator[Path]:
    """An empty temporary file beside ``path``, removed afterwards if it is still there.

    Its mode is what the umask allows. What dead processes left for the same ``path`` goes first.
    """
    start = f".{path.name[:_LONGEST_NAME]}."
    _sweep(path.parent, start, _PART)
    while True:
        part = path.with_name(f"{start}{secrets.token_hex(4)}.part")
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        # Another process may have swept it before it was locked.
        if _lock(handle) is not False and part.exists():
            break
        os.close(handle)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def scratch_folder(purpose: str, folder: Path | None = None) -> Iterator[Path]:
    """A temporary folder that does not outlive its use, not even that of a killed process.

    Args:
        purpose: a word of its name.
        folder: where it is made; None for the system's place (``TMPDIR``).

    Raises:
        InputError: it cannot be made there.
    """
    parent = Path(tempfile.gettempdir() if folder is None else folder)
    _sweep(parent, _PREFIX, _LOCK)
    try:
        made, handle = _own_folder(parent, purpose)
    except OSError as err:
        raise InputError(
            f"temporary folder in {parent} cannot be made ({err.strerror}), expected one that may "
            "be written to; make room, or set TMPDIR to another"
        ) from err
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        made.with_name(made.name + _LOCK).unlink(missing_ok=True)
        os.close(handle)


def _own_folder(parent: Path, purpose: str) -> tuple[Path, int]:
    """A new folder and the handle of the lock beside it, which is there before it."""
    while True:
        made = parent / f"{_PREFIX}{purpose}-{secrets.token_hex(6)}"
        lock = made.with_name(made.name + _LOCK)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        # Another process may have swept it before it was locked.
        if _lock(handle) is not False and lock.exists():
            made.mkdir(mode=0o700)
            return made, handle
        os.close(handle)


@contextmanager
def job_lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold ``path`` against other jobs that make it; one after the other they all get there.

    Args:
        path: of what the job makes, in a folder that exists.
        waiting: called where another process has it.
    """
    lock = path.with_name(f".{path.name[:_LONGEST_NAME]}.lock")
    handle = _own(lock, waiting)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _own(lock: Path, waiting: Callable[[], None]) -> int:
    """A handle on the locked file; waits for whoever has it."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _lock(handle) is False:
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
            # Whoever had it removed the file, and another may have made it anew.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), lock.stat()):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _sweep(folder: Path, start: str, end: str) -> None:
    """Remove what dead processes of this user left in a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        named = [Path(entry.path) for entry in entries if entry.name.endswith((end, ".group"))]
        # Parts that an unfinished group names are no litter: see artefacts.groups.
        if end == _PART and any(path.name.endswith(".group") for path in named):
            return
        for path in named:
            if path.name.startswith(start) and path.name.endswith(end):
                _remove_if_dead(path)


def _remove_if_dead(path: Path) -> None:
    if fcntl is None:  # nothing tells a dead process there
        return
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if os.fstat(handle).st_uid == os.geteuid() and _lock(handle):
                if path.name.endswith(_LOCK):  # of a folder
                    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink()
        finally:
            os.close(handle)


def _lock(handle: int) -> bool | None:
    """Whether the lock is ours now; None where the file system has none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
