"""Model files: ONNX on disk to ``ModelProto`` and back; external data stays inside the folder.

A file is untrusted: its size is bounded before it is read, external data may only name files
beside the model, and each tensor must hold as many bytes as its shape says.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, helper

from artefacts.errors import ModelError
from artefacts.files import replace_atomic
from graphs.edit import check_axes
from graphs.external_data import EXTERNAL_LIMIT_BYTES, load_external, save_external
from graphs.pieces import pieces
from graphs.tensor_data import element_bits, element_count, tensor_bytes, tensors_of, weight_bytes
from graphs.untrusted import ExternalReads, check_extent, tensors_of_nodes

__all__ = ["fits_one_file", "load_model", "save_model"]

PROTOBUF_LIMIT_BYTES = 2**31 - 1

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
    check_extent(model, path)
    check_axes(model.graph)
    left, reads = EXTERNAL_LIMIT_BYTES, ExternalReads()
    in_functions = (tensors_of_nodes(function.node) for function in model.functions)
    for tensor in itertools.chain(tensors_of(model.graph), *in_functions):
        if tensor.data_location == TensorProto.EXTERNAL:
            left -= load_external(tensor, path, left, reads)
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
        with replace_atomic(path) as part, part.open("wb") as file:
            file.writelines(pieces(model))
        return
    save_external(model, path)


def fits_one_file(model: onnx.ModelProto) -> bool:
    """Whether protobuf can serialize a model: up to 2 GB, less some room for its nodes."""
    return weight_bytes(model) < PROTOBUF_LIMIT_BYTES - 2**26


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
    return ModelError(
        f"model {path} is not an ONNX file, or a truncated one ({len(data)} bytes), expected a "
        "whole ONNX model; copy or download it again, or check the path"
    )


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


def _check_size(tensor: TensorProto, path: Path) -> None:
    """A tensor must hold as many elements as its shape says: numpy would raise much later."""
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(
            f"tensor {tensor.name!r} of {path} has shape {list(tensor.dims)}, expected no "
            f"negative dimension; export the model again"
        )
    if element_bits(tensor.data_type) == 0:
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
    count = element_count(tensor)
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return count * 2
    bits = element_bits(tensor.data_type)
    return (count * bits + 7) // 8 if bits < 8 else count
