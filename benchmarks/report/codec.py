"""Results to JSON and back, by the types of their dataclasses."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import math
import types
import typing
import zlib
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from artefacts.documents import parse_json
from artefacts.errors import ArtefactError
from artefacts.faults import DAMAGED, reading
from artefacts.files import read_bounded, write_atomic
from artefacts.texts import shortened, shown
from benchmarks.report.document import VERSION, Report

__all__ = ["from_json", "load_report", "save_report", "schema_of", "to_json"]

Model = TypeVar("Model")
LIMIT_BYTES = 512 << 20


def save_report(report: Report, path: str | Path) -> None:
    """Write the report with its raw samples; whole or not at all.

    Args:
        report: to write.
        path: a name that ends in ``.gz`` is compressed: the same bytes for the same report.

    Raises:
        InputError: the folder cannot be written to.
    """
    text = json.dumps(to_json(report), allow_nan=False, separators=(",", ":"))
    data = text.encode()
    write_atomic(path, gzip.compress(data, mtime=0) if Path(path).suffix == ".gz" else data)


def load_report(path: str | Path) -> Report:
    """Read a report that :func:`save_report` wrote.

    Raises:
        ArtefactError: not JSON, or not such a report.
        InputError: no such file, or larger than 512 MiB.
    """
    data = read_bounded(path, limit_bytes=LIMIT_BYTES, what="report")
    if Path(path).suffix == ".gz":
        data = _unpacked(data, path)
    remedy = "expected the output of python -m benchmarks; run the benchmark again"
    with reading(path, "report", remedy=remedy):
        document = parse_json(data)
        found = document.get("version") if isinstance(document, dict) else None
        if found != VERSION:
            raise ArtefactError(
                f"report {path} has version {shown(found)}, expected {VERSION}; run the benchmark "
                "again"
            )
        return from_json(Report, document, str(path))


def _unpacked(data: bytes, path: str | Path) -> bytes:
    """What was compressed, as far as the limit: a small file may unpack to any size.

    Raises:
        ArtefactError: damaged, or larger than the limit.
    """
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            unpacked = stream.read(LIMIT_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as err:
        raise ArtefactError(
            f"report {path} is no whole gzip file ({err}), expected a compressed report; copy it "
            "again"
        ) from err
    if len(unpacked) > LIMIT_BYTES:
        raise ArtefactError(
            f"report {path} unpacks to more than {LIMIT_BYTES >> 20} MiB, expected a report; "
            "measure shorter"
        )
    return unpacked


def to_json(value: Any) -> Any:
    """Dataclasses, arrays and tuples as JSON values.

    Floats keep 9 significant digits, the samples in arrays 5: 0.005 %, far below what a latency
    can be repeated to, and half the size.
    """
    if dataclasses.is_dataclass(value):
        return {
            field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, np.ndarray):
        return [to_json(float(f"{entry:.5g}")) for entry in value.tolist()]
    if isinstance(value, dict):
        return {key: to_json(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(entry) for entry in value]
    if isinstance(value, float):
        # JSON has no infinity; a figure that is not finite was not measured.
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value


def from_json(kind: type[Model], value: Any, place: str) -> Model:
    """A value of type ``kind`` from its JSON form.

    Args:
        kind: a dataclass, or a type one of its fields has.
        value: what :func:`to_json` made.
        place: where in the file, for errors.

    Raises:
        ArtefactError: the JSON does not fit the type.
    """
    try:
        return typing.cast("Model", _decode(kind, value, place))
    except ArtefactError:
        raise
    except DAMAGED as err:
        raise ArtefactError(
            f"{place} does not fit {kind.__name__} ({shortened(str(err))}), expected the output of "
            "python -m benchmarks; run the benchmark again"
        ) from err


def schema_of(kind: Any) -> dict[str, Any]:
    """JSON Schema of what :func:`to_json` makes of a type; objects allow their fields only.

    Args:
        kind: a dataclass, or a type one of its fields has.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(kind)
        missing = dataclasses.MISSING
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {field.name: schema_of(hints[field.name]) for field in fields},
            "required": [
                f.name for f in fields if f.default is missing and f.default_factory is missing
            ],
        }
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [schema_of(inner[0]), {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": schema_of(inner[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(inner[1])}
    if origin is np.ndarray:
        return {"type": "array", "items": {"type": "number"}}
    if origin is typing.Literal:
        return {"enum": list(inner)}
    return {"type": {float: "number", int: "integer", str: "string", bool: "boolean"}[kind]}


def _decode(kind: Any, value: Any, place: str) -> Any:
    """The value as ``kind``: dataclass, array, union, container or scalar."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_fields(kind, value, place)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _decode(inner[0], value, place)
    if origin is tuple:
        return tuple(_decode(inner[0], entry, f"{place}[{i}]") for i, entry in enumerate(value))
    if origin is dict:
        return {key: _decode(inner[1], entry, f"{place}.{key}") for key, entry in value.items()}
    if origin is np.ndarray:
        return np.asarray(value, dtype=np.float64)
    if origin is typing.Literal:
        if value not in inner:
            raise ArtefactError(
                f"{place} is {shown(value)}, expected one of {inner}; measure again"
            )
        return value
    if kind is float:
        number = float(value)
        if not math.isfinite(number):
            raise ArtefactError(f"{place} is {number}, expected a finite number; measure again")
        return number
    if kind in (str, int, bool) and (type(value) is not kind or _is_beyond(value)):
        raise ArtefactError(
            f"{place} is {shown(value)}, expected a value of type {kind.__name__}; measure again"
        )
    return value


def _is_beyond(value: object) -> bool:
    """Whether an integer is none that anybody measures, and fails wherever it becomes a float."""
    return type(value) is int and value.bit_length() > 63


def _decode_fields(kind: Any, value: Any, place: str) -> Any:
    """A dataclass from a JSON object with exactly its fields (those with defaults may lack)."""
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(value, dict) or (unknown := sorted(set(value) - known)):
        found = shown(unknown) if isinstance(value, dict) else type(value).__name__
        raise ArtefactError(
            f"{place} has {found}, expected an object with fields of {kind.__name__}; "
            "run the benchmark again"
        )
    return kind(
        **{name: _decode(hints[name], entry, f"{place}.{name}") for name, entry in value.items()}
    )
