"""The bytes of a model file one after another: a large one is not held twice to be written."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from graphs.tensor_data import copy_fields

__all__ = ["pieces"]

_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_LENGTH_DELIMITED = 2  # wire type of a message within another


def pieces(model: onnx.ModelProto) -> Iterator[bytes]:
    """What ``model.SerializeToString(deterministic=True)`` is, with one initializer at a time.

    Fields are written by number, so a message is what is below one of its fields, the field and
    what is above it (https://protobuf.dev/programming-guides/encoding/).
    """
    graph = model.graph
    # Fields of a newer ONNX: where they stand is not known.
    unknown = len(UnknownFieldSet(model)) + len(UnknownFieldSet(graph))
    if unknown or not model.HasField("graph"):
        yield model.SerializeToString(deterministic=True)
        return
    before, after = _part(graph, 0, _INITIALIZER), _part(graph, _INITIALIZER + 1)
    sizes = [len(tensor.SerializeToString(deterministic=True)) for tensor in graph.initializer]
    heads = [_head(_INITIALIZER, size) for size in sizes]
    yield _part(model, 0, _GRAPH)
    yield _head(_GRAPH, len(before) + sum(sizes) + sum(map(len, heads)) + len(after))
    yield before
    for head, tensor in zip(heads, graph.initializer, strict=True):
        yield head
        yield tensor.SerializeToString(deterministic=True)
    yield after
    yield _part(model, _GRAPH + 1)


def _part(message: Message, first: int, end: int = 1 << 30) -> bytes:
    """The fields of some numbers."""
    part = type(message)()
    copy_fields(message, part, lambda field: first <= field.number < end)
    return bytes(part.SerializeToString(deterministic=True))


def _head(field: int, size: int) -> bytes:
    """Number and length in front of a message within another."""
    return _varint(field << 3 | _LENGTH_DELIMITED) + _varint(size)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
