"""Files that are whole or absent: atomic writes, bounded reads, hashes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from artefacts.errors import InputError
from artefacts.faults import writing
from artefacts.litter import new_part

__all__ = [
    "check_output",
    "digest_of",
    "make_folder",
    "read_bounded",
    "replace_atomic",
    "sha256_bytes",
    "sha256_file",
    "sync_file",
    "sync_folder",
    "write_atomic",
]


def check_output(path: str | Path, flag: str) -> None:
    """Refuse what could not be written at the end of a long run.

    Args:
        path: to be written.
        flag: that names it, for errors.

    Raises:
        InputError: it is a folder, or lies where nothing can be written.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(
            f"{flag} {path} is a folder, expected a file to write; name one in it, e.g. "
            f"{path / 'model.int8.engine'}"
        )
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        found = "read-only" if there.is_dir() else "not a folder"
        raise InputError(
            f"output folder {path.parent} is not writable ({there} is {found}), expected a folder "
            f"to write {path.name} to; choose another one or change its permissions"
        )


@contextmanager
def replace_atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; rename it to ``path`` on success.

    The temporary file is synced before the rename, the folder after it, and removed on any error,
    so ``path`` is either what it was or complete.

    Raises:
        InputError: the folder cannot be made or written to, or has no room.
    """
    path = Path(path)
    make_folder(path)
    with writing(path), new_part(path) as part:
        yield part
        sync_file(part)
        part.replace(path)
        sync_folder(path.parent)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path``, all of it or nothing.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    with replace_atomic(path) as part:
        part.write_bytes(data)


def read_bounded(path: str | Path, *, limit_bytes: int, what: str) -> bytes:
    """Read a file that must not be larger than ``limit_bytes``; ``what`` names it in errors.

    Raises:
        InputError: no such file, not readable, or larger than the limit.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise InputError(f"{what} {path} does not exist, expected a file; check the path")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= limit_bytes:
                return file.read(size)
    except OSError as err:
        raise InputError(f"{what} {path} cannot be read ({err.strerror}); check it") from err
    raise InputError(
        f"{what} {path} has {size} bytes, expected at most {limit_bytes}; is it the right file?"
    )


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def digest_of(digests: Iterable[str]) -> str:
    """One digest for a set of samples, whatever their order."""
    return sha256_bytes("\n".join(sorted(set(digests))).encode())


def make_folder(path: Path) -> None:
    """Make the folder of ``path``.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(path.parent, os.W_OK)
        reason = "Permission denied"
    except OSError as err:
        writable, reason = False, str(err.strerror)
    if not writable:
        raise InputError(
            f"output folder {path.parent} is not writable ({reason}), expected a folder to "
            f"write {path.name} to; choose another one or change its permissions"
        )


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with path.open("r+b") as file:  # Windows syncs only what may be written
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can tell."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
