"""Files that are whole or absent: atomic writes, bounded reads, hashes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artefacts.errors import InputError

__all__ = [
    "check_output",
    "read_bounded",
    "replace_atomic",
    "sha256_bytes",
    "sha256_file",
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

    The temporary file is synced before the rename and removed on any error, so ``path`` is
    either what it was or complete.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as err:
        raise InputError(
            f"output folder {path.parent} is not writable ({err.strerror}), expected a folder to "
            f"write {path.name} to; choose another one or change its permissions"
        ) from err
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("r+b") as file:  # Windows syncs only what may be written
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


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
    if not path.is_file():
        raise InputError(f"{what} {path} does not exist, expected a file; check the path")
    size = path.stat().st_size
    if size > limit_bytes:
        raise InputError(
            f"{what} {path} has {size} bytes, expected at most {limit_bytes}; is it the right file?"
        )
    try:
        return path.read_bytes()
    except OSError as err:
        raise InputError(f"{what} {path} cannot be read ({err.strerror}); check it") from err


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


def _umask() -> int:
    """The process's umask; mkstemp makes files 0600, which other users' services cannot read."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
