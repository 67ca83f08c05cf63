"""Inputs that ``polygraphy run --save-inputs`` wrote: JSON, arrays as base64 of .npy.

Read here and not by Polygraphy, whose decoder makes objects of whatever types a file names, opens
archives of unknown size and needs the library.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from artefacts.errors import DataError, InputError
from artefacts.files import read_bounded
from calibrators.samples.arrays import array_of

__all__ = ["SUFFIX", "is_saved_folder", "saved_inputs"]

SUFFIX = ".json"
_FIRST_OF_FOLDER = "0000000000.json"
_LARGEST_FILE_BYTES = 512 << 20
_REMEDY = "write it with polygraphy run model.onnx --onnxrt --save-inputs inputs.json"


def is_saved_folder(path: Path) -> bool:
    """Whether it is a folder of one file an iteration, as Polygraphy writes where no suffix is."""
    return (path / _FIRST_OF_FOLDER).is_file()


def saved_inputs(path: Path) -> Iterator[dict[str, NDArray[Any]]]:
    """The inputs of each iteration; of a folder, one file at a time is in memory.

    Args:
        path: a file, or a folder of them.

    Raises:
        DataError: a file is damaged, larger than 512 MiB, or something else.
    """
    for file in sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]:
        try:
            found = json.loads(
                read_bounded(file, limit_bytes=_LARGEST_FILE_BYTES, what="saved inputs")
            )
        except InputError as err:
            raise DataError(f"{err} (a folder holds one file an iteration)") from err
        except (ValueError, RecursionError) as err:
            raise _unreadable(file, f"is no JSON ({err})") from err
        # One iteration of a folder stands alone, those of a file in a list.
        feeds = found if isinstance(found, list) else [found]
        if not feeds:
            raise _unreadable(file, "holds 0 iterations")
        for number, feed in enumerate(feeds):
            yield _feed(feed, file, number)


def _feed(feed: Any, file: Path, number: int) -> dict[str, NDArray[Any]]:
    if not isinstance(feed, dict) or not feed:
        raise _unreadable(file, f"holds {type(feed).__name__} as iteration {number}")
    if "lst" in feed:
        raise _unreadable(file, "holds outputs (--save-outputs)")
    return {name: _array(entry, file, f"{name} of {number}") for name, entry in feed.items()}


def _array(entry: Any, file: Path, name: str) -> NDArray[Any]:
    """One array, ``{"array": base64}``."""
    text = entry.get("array") if isinstance(entry, dict) else None
    if not isinstance(text, str):
        raise _unreadable(file, f"holds no NumPy array as input {name}")
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as err:
        raise _unreadable(file, f"is damaged at input {name} ({err})") from err
    return array_of(data, file, name)


def _unreadable(file: Path, found: str) -> DataError:
    return DataError(f"{file} {found}, expected inputs by name as Polygraphy saves them; {_REMEDY}")
