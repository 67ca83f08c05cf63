"""Tensors in a file beside the model: read within its folder, written where 2 GB would not do."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto

from artefacts.errors import ModelError
from artefacts.files import replace_atomic, write_atomic
from graphs.tensor_data import (
    LARGE_BYTES,
    raw_bytes,
    tensor_bytes,
    tensors_of,
    without_data,
)
from graphs.untrusted import ExternalReads

__all__ = ["EXTERNAL_LIMIT_BYTES", "load_external", "save_external", "stored_bytes"]

EXTERNAL_LIMIT_BYTES = 64 * 2**30
ALIGNMENT_BYTES = 4096  # lets a runtime map a tensor straight from the file
INLINE_BELOW_BYTES = 1024  # shapes, axes and scales stay readable in the model file


def load_external(tensor: TensorProto, model: Path, limit_bytes: int, reads: ExternalReads) -> int:
    """Read one tensor's external data into it; return its size in bytes.

    Raises:
        ModelError: the data is missing, lies outside the model's folder, ends too early, or is
            larger than ``limit_bytes``; or others have read the same bytes, by ``reads``.
    """
    keys = {entry.key: entry.value for entry in tensor.external_data}
    file = _confine(keys.get("location", ""), tensor, model)
    try:
        offset = int(keys.get("offset", "0"))
        length = int(keys.get("length", str(tensor_bytes(tensor))))
    except ValueError as err:
        raise ModelError(
            f"tensor {tensor.name!r} of {model} has external data with offset "
            f"{keys.get('offset')!r} and length {keys.get('length')!r}, expected whole numbers; "
            f"export the model again"
        ) from err
    size = file.stat().st_size
    if offset < 0 or length < 0 or offset + length > size or length > limit_bytes:
        raise ModelError(
            f"tensor {tensor.name!r} of {model} reads bytes {offset} to {offset + length} of "
            f"{file.name}, found a file of {size} bytes; copy the data file again, whole"
        )
    reads.add(file, length, size)
    with file.open("rb") as handle:
        handle.seek(offset)
        tensor.raw_data = handle.read(length)
    del tensor.external_data[:]
    tensor.ClearField("data_location")
    return length


def stored_bytes(path: Path) -> int:
    """Bytes of a model's file and of the tensors that lie beside it."""
    own = path.stat().st_size
    if own > LARGE_BYTES:  # its tensors are inside
        return own
    model = onnx.load(path, load_external_data=False)
    outside = (t for t in tensors_of(model.graph) if t.data_location == TensorProto.EXTERNAL)
    return own + sum(map(tensor_bytes, outside))


def _confine(location: str, tensor: TensorProto, model: Path) -> Path:
    """The external file of a tensor, which must lie in the model's folder."""
    what = f"tensor {tensor.name!r} of {model} keeps its data in {location!r}"
    if not location or "\0" in location:
        raise ModelError(f"{what}, expected a file name; export the model again")
    folder = model.parent.resolve()
    given = Path(location)
    windows = "\\" in location or location[1:2] == ":"
    if given.is_absolute() or windows or ".." in given.parts:
        raise ModelError(
            f"{what}, expected a path inside the model's folder; move the file there and export "
            f"the model with a relative location"
        )
    file = (folder / given).resolve()
    if not file.is_relative_to(folder):
        raise ModelError(f"{what}, a link that leaves the model's folder; copy the file there")
    if not file.is_file():
        raise ModelError(f"{what}, which is missing in {folder}; copy it beside the model")
    return file


def save_external(
    model: onnx.ModelProto,
    path: Path,
    *,
    elsewhere: Mapping[str, TensorProto] | None = None,
) -> None:
    """Write the large tensors to one file beside the model, then the model.

    Args:
        model: which is not changed.
        path: of the file.
        elsewhere: initializer → the tensor that holds its data, where the model itself does not.

    Raises:
        InputError: the folder cannot be written to.
    """
    light, large = without_data(model, INLINE_BELOW_BYTES)
    held = elsewhere or {}
    digest = hashlib.sha256()
    for tensor in large:
        digest.update(raw_bytes(held.get(tensor.name, tensor)))
    name = f"{path.stem}.{digest.hexdigest()[:12]}.data"
    places: dict[str, tuple[int, int]] = {}
    with replace_atomic(path.parent / name) as part, part.open("wb") as file:
        for tensor in large:
            file.seek(-file.tell() % ALIGNMENT_BYTES, os.SEEK_CUR)
            data = raw_bytes(held.get(tensor.name, tensor))
            places[tensor.name] = (file.tell(), file.write(data))
    for tensor in light.graph.initializer:
        if tensor.name in places:
            tensor.data_location = TensorProto.EXTERNAL
            offset, length = places[tensor.name]
            for key, value in (("location", name), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
    write_atomic(path, light.SerializeToString(deterministic=True))
