"""TensorFlow Lite metadata: what a ``.tflite`` file says of the images it is fed with.

Sources of the field numbers: tensorflow/lite/schema/schema.fbs (Model, Metadata, Buffer) and
metadata_schema.fbs of TensorFlow Lite Support (all others).
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artefacts.errors import DataError
from artefacts.faults import reading
from artefacts.files import read_bounded
from artefacts.libraries import require
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.preprocessing.presets import Dims, channels_of, layout_of, sides_of

__all__ = ["TfliteMetadata", "read_tflite"]

_LIMIT_BYTES = 1 << 31
_LABELS_BYTES = 1 << 24
_NORMALIZATION, _AXIS_LABELS = 1, 2  # of ProcessUnitOptions and AssociatedFileType
_MOST_ENTRIES = 1 << 20  # of all vectors that are read: they may lie in each other
_LONGEST_NAME = 1 << 10


@dataclass(frozen=True, kw_only=True)
class TfliteMetadata:
    """What was found.

    Attributes:
        mean: subtracted from 0..255, one or one per channel; empty where nothing is said.
        std: divided by.
        classes: class names by index, empty where there are none.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]

    def preprocess(self, shape: Dims, *, where: str) -> Preprocess:
        """The spec: as TensorFlow Lite's task library, the whole image is resized to the input.

        Raises:
            DataError: the input has no fixed size.
        """
        height, width = sides_of(shape)
        if height is None or width is None:
            raise DataError(
                f"{where} says no image size and the model's input has none, expected a fixed one; "
                "write a spec file for --preprocess"
            )
        return Preprocess.from_dict(
            {
                "resize": [height, width],
                "color": "gray" if channels_of(shape) == 1 else "rgb",
                "mean": list(self.mean) if len(self.mean) > 1 else self.mean[0],
                "std": list(self.std) if len(self.std) > 1 else self.std[0],
                "layout": layout_of(shape),
            },
            where=where,
        )


def read_tflite(path: Path) -> TfliteMetadata | None:
    """The metadata of a file; None where it has none.

    Raises:
        DataError: the file is damaged.
    """
    data = read_bounded(path, limit_bytes=_LIMIT_BYTES, what="TensorFlow Lite model")
    remedy = "expected a whole .tflite file; copy it again, or move it away and give --preprocess"
    with reading(path, "TensorFlow Lite model", remedy=remedy, error=DataError):
        return _read(data)


def _read(data: bytes) -> TfliteMetadata | None:
    if data[4:8] != b"TFL3":
        raise ValueError("it does not have TFL3 at byte 4")
    model = _Table.root(data)
    found = [entry for entry in model.tables(6) if entry.text(0) == "TFLITE_METADATA"]
    if not found:
        return None
    metadata = _Table.root(model.tables(4)[found[0].number(1)].raw(0))
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels: list[str] = []
    for graph in metadata.tables(3)[:1]:
        for tensor in graph.tables(2)[:1]:
            for unit in tensor.tables(4):
                if unit.byte(0) == _NORMALIZATION and (options := unit.table(1)) is not None:
                    mean, std = options.floats(0), options.floats(1)
        files = [file for tensor in graph.tables(3) for file in tensor.tables(6)]
        labels = [file.text(0) for file in files if file.byte(2) == _AXIS_LABELS]
    return TfliteMetadata(mean=mean, std=std, classes=_classes(data, labels))


def _classes(data: bytes, names: list[str]) -> tuple[str, ...]:
    """Lines of the first file of labels; associated files are zipped behind the model."""
    if not names or not zipfile.is_zipfile(io.BytesIO(data)):
        return ()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if names[0] not in archive.namelist():
            return ()
        with archive.open(names[0]) as file:
            text = file.read(_LABELS_BYTES).decode("utf-8", "replace")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


class _Table:
    """A table of a FlatBuffer, its fields by number; all tables of one count their entries."""

    def __init__(self, data: bytes, position: int, read: Counter[str]) -> None:
        flatbuffers = require("flatbuffers.table", extra="cpu")
        self._data, self._read = data, read
        self._table: Any = flatbuffers.Table(data, position)

    @classmethod
    def root(cls, data: bytes) -> _Table:
        """The table that a buffer begins with."""
        return cls(data, struct.unpack_from("<I", data)[0], Counter())

    def _at(self, field: int) -> int:
        """Where a field lies, 0 where it is not given."""
        offset = int(self._table.Offset(4 + 2 * field))
        return offset and offset + int(self._table.Pos)

    def byte(self, field: int) -> int:
        """A byte."""
        at = self._at(field)
        return self._data[at] if at else 0

    def number(self, field: int) -> int:
        """An unsigned number of four bytes."""
        at = self._at(field)
        return int(struct.unpack_from("<I", self._data, at)[0]) if at else 0

    def text(self, field: int) -> str:
        """A string, as much of it as a name may have."""
        at = self._at(field)
        if not at:
            return ""
        start = int(self._table.Indirect(at))
        length = min(int(struct.unpack_from("<I", self._data, start)[0]), _LONGEST_NAME)
        return self._data[start + 4 : start + 4 + length].decode("utf-8", "replace")

    def table(self, field: int) -> _Table | None:
        """A table, also that of a union."""
        at = self._at(field)
        return self._beneath(at) if at else None

    def tables(self, field: int) -> list[_Table]:
        """A vector of tables."""
        return [self._beneath(at) for at in self._entries(field, 4)]

    def floats(self, field: int) -> tuple[float, ...]:
        """A vector of float32."""
        return tuple(struct.unpack_from("<f", self._data, at)[0] for at in self._entries(field, 4))

    def raw(self, field: int) -> bytes:
        """A vector of bytes."""
        places = range(0) if not self._at(field) else self._entries(field, 1)
        return self._data[places.start : places.stop]

    def _beneath(self, at: int) -> _Table:
        return _Table(self._data, int(self._table.Indirect(at)), self._read)

    def _entries(self, field: int, size: int) -> range:
        """Where the entries of a vector lie."""
        offset = int(self._table.Offset(4 + 2 * field))
        if not offset:
            return range(0)
        start, count = int(self._table.Vector(offset)), int(self._table.VectorLen(offset))
        if start + size * count > len(self._data):
            raise ValueError(f"a vector ends at {start + size * count} of {len(self._data)} bytes")
        self._read["entries"] += count if size > 1 else 0
        if self._read["entries"] > _MOST_ENTRIES:
            raise ValueError(f"its vectors have more than {_MOST_ENTRIES} entries")
        return range(start, start + size * count, size)
