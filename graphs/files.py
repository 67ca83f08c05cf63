"""Model files: ONNX on disk to ``ModelProto`` and back; external data stays inside the folder.

A file is untrusted: its size is bounded before it is read, external data may only name files
beside the model, and each tensor must hold as many bytes as its shape says.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, helper, numpy_helper

from artefacts.errors import ModelError
from artefacts.files import replace_atomic, write_atomic
from graphs.edit import check_axes

__all__ = [
    "fits_one_file",
    "load_model",
    "save_model",
    "tensor_bytes",
    "tensors_of",
    "without_data",
]

PROTOBUF_LIMIT_BYTES = 2**31 - 1
EXTERNAL_LIMIT_BYTES = 64 * 2**30
ALIGNMENT_BYTES = 4096  # lets a runtime map a tensor straight from the file
INLINE_BELOW_BYTES = 1024  # shapes, axes and scales stay readable in the model file

_SIGNATURES = (
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive (a PyTorch .pt or a Keras .keras file?)"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x80\x02", "a Python pickle (an old PyTorch checkpoint?)"),
    (0, b"\x89HDF", "an HDF5 file (a Keras model?)"),
    (0, b"\x93NUMPY", "a numpy array"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"ptrt", "a TensorRT engine"),
    (0, b"ftrt", "a TensorRT engine"),
    (0, b"<", "an HTML or XML text (a failed download, or an OpenVINO model?)"),
    (0, b"version https://git-lfs", "a Git LFS pointer (run git lfs pull)"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "an onnxruntime .ort file"),
)
_HELP = "expected an ONNX model; export one or check the path"
# Top-level fields of onnx.ModelProto; another number means that the file is something else.
_MODEL_FIELDS = frozenset(field.number for field in onnx.ModelProto.DESCRIPTOR.fields)


def load_model(path: str | Path) -> onnx.ModelProto:
    """Read an ONNX file with its external data.

    Args:
        path: an ``.onnx`` file; external data is looked for in its folder only.

    Raises:
        ModelError: no such file, not an ONNX file, truncated, newer than this library knows,
            a tensor whose data does not fit its shape, an absurd axis, or external data that is
            missing or lies outside the model's folder.
    """
    path = Path(path)
    data = _read(path)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as err:
        raise _explain(path, data) from err
    if model.ir_version <= 0 or not model.HasField("graph") or not model.graph.output:
        raise _explain(path, data)
    _check_text(model, path)
    _check_versions(path, model)
    check_axes(model.graph)
    left = EXTERNAL_LIMIT_BYTES
    for tensor in tensors_of(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            left -= _load_external(tensor, path, left)
        _check_size(tensor, path)
    return model


def save_model(model: onnx.ModelProto, path: str | Path) -> None:
    """Write a model, whole or not at all; tensors go to a file beside it where it passes 2 GB.

    The data file carries a digest of its content in its name, so an older model at ``path``
    keeps its own until it is replaced.

    Raises:
        InputError: the folder cannot be written to.
    """
    path = Path(path)
    if fits_one_file(model):
        write_atomic(path, model.SerializeToString(deterministic=True))
        return
    _save_external(model, path)


def fits_one_file(model: onnx.ModelProto) -> bool:
    """Whether protobuf can serialize a model: up to 2 GB, less some room for its nodes."""
    total = sum(tensor_bytes(tensor) for tensor in tensors_of(model.graph))
    return total < PROTOBUF_LIMIT_BYTES - 2**26


def tensors_of(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Every tensor of a graph: initializers, attributes, and those of subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from tensors_of(attribute.g)
            for subgraph in attribute.graphs:
                yield from tensors_of(subgraph)


def tensor_bytes(tensor: TensorProto) -> int:
    """Bytes of a tensor's elements, from its shape and type; 0 for strings and unknown types."""
    return (_count(tensor) * _bits(tensor.data_type) + 7) // 8


def _count(tensor: TensorProto) -> int:
    return math.prod(int(dim) for dim in tensor.dims)


def _bits(data_type: int) -> int:
    if data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return 0
    name = TensorProto.DataType.Name(data_type) if data_type in _KNOWN_TYPES else ""
    if name.endswith(("INT4", "FLOAT4E2M1")):
        return 4
    if name.endswith("INT2"):
        return 2
    if name.startswith("FLOAT6"):
        return 6
    return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize) * 8 if name else 0


_KNOWN_TYPES = frozenset(TensorProto.DataType.values())


def _read(path: Path) -> bytes:
    if not path.exists():
        raise ModelError(f"model {path} does not exist, expected an ONNX file; check the path")
    if not path.is_file():
        raise ModelError(f"model {path} is not a file, expected an ONNX file; check the path")
    size = path.stat().st_size
    if size == 0:
        raise ModelError(f"model {path} is empty (0 bytes), {_HELP}")
    if size > PROTOBUF_LIMIT_BYTES:
        raise ModelError(
            f"model {path} has {size} bytes, expected at most {PROTOBUF_LIMIT_BYTES} (an ONNX "
            f"file cannot be larger); save it with external data"
        )
    try:
        return path.read_bytes()
    except OSError as err:
        raise ModelError(f"model {path} cannot be read ({err.strerror}); check it") from err


def _explain(path: Path, data: bytes) -> ModelError:
    """What a file that does not parse most likely is."""
    for offset, signature, what in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            return ModelError(f"model {path} is {what}, {_HELP}")
    missing = _missing_bytes(data)
    if missing:
        return ModelError(
            f"model {path} is truncated: it ends {missing} bytes before its last field does, "
            f"expected a whole ONNX file; copy or download it again"
        )
    return ModelError(f"model {path} is not an ONNX file ({len(data)} bytes), {_HELP}")


def _missing_bytes(data: bytes) -> int:
    """How many bytes the last top-level protobuf field lacks; 0 where these are no ONNX fields."""
    position, fields = 0, 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if number not in _MODEL_FIELDS or wire not in (0, 2):
            return 0
        fields += 1
        value, position = _varint(data, position)
        if wire == 2:
            position += value
    return position - len(data) if fields > 1 else 0


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """One base-128 number and the position after it (protobuf.dev/programming-guides/encoding)."""
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    return value, position + 1


def _check_text(message: Message, path: Path) -> None:
    """Every name is text: protobuf hands out broken UTF-8 as bytes, which nothing expects."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            for text in value if field.is_repeated else (value,):
                if not isinstance(text, str):
                    raise ModelError(
                        f"model {path} has a {field.full_name} of {text[:40]!r}, expected UTF-8 "
                        f"text; the file is damaged: export or copy it again"
                    )
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in value if field.is_repeated else (value,):
                _check_text(part, path)


def _check_versions(path: Path, model: onnx.ModelProto) -> None:
    if model.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"model {path} has ONNX IR version {model.ir_version}, expected at most "
            f"{onnx.IR_VERSION} with onnx {onnx.__version__}; update onnx or export it again"
        )
    if not model.opset_import:
        raise ModelError(
            f"model {path} names no opset, expected an entry in opset_import; it may be truncated: "
            f"copy or export it again"
        )
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > newest:
            raise ModelError(
                f"model {path} has opset {entry.version}, expected at most {newest} with onnx "
                f"{onnx.__version__}; update onnx or export it again"
            )


def _load_external(tensor: TensorProto, model: Path, limit_bytes: int) -> int:
    """Read one tensor's external data into it; return its size in bytes."""
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
    with file.open("rb") as handle:
        handle.seek(offset)
        tensor.raw_data = handle.read(length)
    del tensor.external_data[:]
    tensor.ClearField("data_location")
    return length


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


def _check_size(tensor: TensorProto, path: Path) -> None:
    """A tensor must hold as many elements as its shape says: numpy would raise much later."""
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(
            f"tensor {tensor.name!r} of {path} has shape {list(tensor.dims)}, expected no "
            f"negative dimension; export the model again"
        )
    if _bits(tensor.data_type) == 0:
        if tensor.data_type == TensorProto.STRING:
            return
        raise ModelError(
            f"tensor {tensor.name!r} of {path} has element type {tensor.data_type}, expected one "
            f"that onnx {onnx.__version__} knows; update onnx or export the model again"
        )
    if tensor.HasField("raw_data"):
        found, expected, unit = len(tensor.raw_data), tensor_bytes(tensor), "bytes"
    else:
        field = helper.tensor_dtype_to_field(tensor.data_type)
        found = len(getattr(tensor, field))
        expected, unit = _typed_length(tensor), "numbers"
    if found != expected:
        raise ModelError(
            f"tensor {tensor.name!r} of {path} with shape {list(tensor.dims)} holds {found} "
            f"{unit}, expected {expected}; the file is damaged: export or copy it again"
        )


def _typed_length(tensor: TensorProto) -> int:
    """Entries of the typed field: complex numbers take two, 4-bit numbers share a byte."""
    count = _count(tensor)
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return count * 2
    bits = _bits(tensor.data_type)
    return (count * bits + 7) // 8 if bits < 8 else count


def _save_external(model: onnx.ModelProto, path: Path) -> None:
    """Write the large tensors to one file beside the model, then the model."""
    light, large = without_data(model, INLINE_BELOW_BYTES)
    digest = hashlib.sha256()
    for tensor in large:
        digest.update(_raw(tensor))
    name = f"{path.stem}.{digest.hexdigest()[:12]}.data"
    places: dict[str, tuple[int, int]] = {}
    with replace_atomic(path.parent / name) as part, part.open("wb") as file:
        for tensor in large:
            file.seek(-file.tell() % ALIGNMENT_BYTES, os.SEEK_CUR)
            places[tensor.name] = (file.tell(), file.write(_raw(tensor)))
    for tensor in light.graph.initializer:
        if tensor.name in places:
            tensor.data_location = TensorProto.EXTERNAL
            offset, length = places[tensor.name]
            for key, value in (("location", name), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
    write_atomic(path, light.SerializeToString(deterministic=True))


def without_data(
    model: onnx.ModelProto, limit_bytes: int
) -> tuple[onnx.ModelProto, list[TensorProto]]:
    """A copy whose initializers of ``limit_bytes`` or more have no data, and those initializers.

    Protobuf cannot serialize 2 GB, and the C++ functions of onnx serialize what they are given.
    """
    light = onnx.ModelProto()
    _copy_fields(model, light, skip="graph")
    _copy_fields(model.graph, light.graph, skip="initializer")
    large = []
    for tensor in model.graph.initializer:
        copy = light.graph.initializer.add()
        if tensor.data_type == TensorProto.STRING or tensor_bytes(tensor) < limit_bytes:
            copy.CopyFrom(tensor)
            continue
        copy.name, copy.data_type = tensor.name, tensor.data_type
        copy.dims.extend(tensor.dims)
        large.append(tensor)
    return light, large


def _copy_fields(source: Message, target: Message, *, skip: str) -> None:
    for field, value in source.ListFields():
        if field.name == skip:
            continue
        if field.is_repeated:
            getattr(target, field.name).MergeFrom(value)
        elif field.message_type:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _raw(tensor: TensorProto) -> bytes:
    """A tensor's elements as little-endian bytes."""
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    return numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
