"""What goes wrong with a file, as one sentence: while it is read, and while it is written."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError

from artefacts.errors import ArtefactError, BuilderError, InputError
from artefacts.texts import shortened

__all__ = ["DAMAGED", "reading", "writing"]

# What parsers of the standard library and numpy raise on damaged files, and what our own code
# raises on values that it did not expect; found by fuzzing (tests/soak).
DAMAGED: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TokenError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def reading(
    path: str | Path, what: str, *, remedy: str, error: type[InputError] = ArtefactError
) -> Iterator[None]:
    """Turn whatever a damaged file makes a reader raise into one sentence.

    Args:
        path: of the file.
        what: names it, e.g. "ranges".
        remedy: what was expected and what to do, e.g. "expected …; calibrate again".
        error: its kind.

    Raises:
        ArtefactError: or ``error``, with the reason; errors of ours pass.
        InputError: the file cannot be read at all.
    """
    try:
        yield
    except BuilderError:
        raise
    except OSError as err:
        raise InputError(
            f"{what} {path} cannot be read ({err.strerror or err}), expected a file that may be "
            "read; check it"
        ) from err
    except DAMAGED as err:
        missing = isinstance(err, KeyError)
        reason = f"no {shortened(str(err))}" if missing else shortened(str(err))
        raise error(
            f"{what} {path} cannot be read ({reason or type(err).__name__}), {remedy}"
        ) from err


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn what a file system says while ``path`` is written into one sentence.

    Raises:
        InputError: no room, no permission, a folder in the way.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        yield
    except BuilderError:
        raise
    except OSError as err:
        raise InputError(
            f"{path} cannot be written ({err.strerror or err}), expected a file name in a folder "
            "with room that may be written to; choose another path, or make room"
        ) from err
