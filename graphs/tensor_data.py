"""The data of a model's tensors: all of them, how many bytes each has, a model without it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Set

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

from graphs.walk import subgraphs

__all__ = [
    "LARGE_BYTES",
    "copy_fields",
    "element_bits",
    "element_count",
    "outline",
    "raw_bytes",
    "tensor_bytes",
    "tensors_of",
    "weight_bytes",
    "without_data",
    "without_data_of",
]

LARGE_BYTES = 128 << 20
"""Weights of a model from which a runtime is given files to map instead of bytes."""
_OUTLINED_BYTES = 1 << 16
_KNOWN_TYPES = frozenset(TensorProto.DataType.values())


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
        for body in subgraphs(node):
            yield from tensors_of(body)


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all tensors of a model; protobuf cannot say how large one of over 2 GB is."""
    return sum(tensor_bytes(tensor) for tensor in tensors_of(model.graph))


def tensor_bytes(tensor: TensorProto) -> int:
    """Bytes of a tensor's elements, from its shape and type; 0 for strings and unknown types."""
    return (element_count(tensor) * element_bits(tensor.data_type) + 7) // 8


def element_count(tensor: TensorProto) -> int:
    """Elements of a tensor, by its shape."""
    return math.prod(int(dim) for dim in tensor.dims)


def element_bits(data_type: int) -> int:
    """Bits of an element of an ONNX type; 0 for strings and unknown types."""
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


def without_data(
    model: onnx.ModelProto, limit_bytes: int
) -> tuple[onnx.ModelProto, list[TensorProto]]:
    """A copy whose initializers of ``limit_bytes`` or more have no data, and those initializers.

    Protobuf cannot serialize 2 GB, and the C++ functions of onnx serialize what they are given.
    """
    large = [tensor for tensor in model.graph.initializer if _reaches(tensor, limit_bytes)]
    return without_data_of(model, {tensor.name for tensor in large}), large


def without_data_of(model: onnx.ModelProto, names: Set[str]) -> onnx.ModelProto:
    """A copy in which some initializers have a type and a shape, and no data."""
    light = onnx.ModelProto()
    copy_fields(model, light, lambda field: field.name != "graph")
    copy_fields(model.graph, light.graph, lambda field: field.name != "initializer")
    for tensor in model.graph.initializer:
        copy = light.graph.initializer.add()
        if tensor.name in names:
            copy.name, copy.data_type = tensor.name, tensor.data_type
            copy.dims.extend(tensor.dims)
        else:
            copy.CopyFrom(tensor)
    return light


def _reaches(tensor: TensorProto, limit_bytes: int) -> bool:
    """Whether a tensor of numbers has so many bytes."""
    return tensor.data_type != TensorProto.STRING and tensor_bytes(tensor) >= limit_bytes


def outline(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for whom names, shapes and small constants are enough: the others have no data."""
    return without_data(model, _OUTLINED_BYTES)[0]


def copy_fields(
    source: Message, target: Message, wanted: Callable[[FieldDescriptor], bool]
) -> None:
    """Copy some fields of a message into another of its kind."""
    for field, value in source.ListFields():
        if not wanted(field):
            continue
        if field.is_repeated:
            getattr(target, field.name).MergeFrom(value)
        elif field.message_type:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def raw_bytes(tensor: TensorProto) -> bytes:
    """A tensor's elements as little-endian bytes."""
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    return numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
