"""Shapes and types of every tensor, by ONNX's own inference."""

from __future__ import annotations

from typing import Any

from onnx import ModelProto, TensorProto, ValueInfoProto, checker, shape_inference

from artefacts.errors import ModelError
from graphs.opset import ONNX_ERRORS, default_opsets, hide_data, reason
from graphs.walk import is_default_domain, walk

__all__ = ["check", "followed", "infer_shapes", "inferred", "static_shape", "values"]

_INTEGERS = frozenset({TensorProto.INT32, TensorProto.INT64})
# Reshape of opset 13 takes constant sizes alone, that of 14 what was followed. Nothing else that is
# inferred differs between the two, but for BatchNormalization in training mode.
_BLIND_RESHAPE = 13
_MOST_FOLLOWED = 1 << 16
_SHAPE_OF_INPUT = frozenset({"GroupNormalization"})  # and ONNX 1.23 has no rule that says so


def infer_shapes(model: ModelProto) -> None:
    """Write the shapes and types that ONNX infers to ``value_info``.

    What the file says of the outputs of custom operators and loops stays: nobody else knows.

    Raises:
        ModelError: types or shapes of the graph contradict each other.
    """
    untold = (n for n in model.graph.node if not is_default_domain(n) or n.op_type == "Loop")
    names = {name for node in untold for name in node.output}
    kept = [value for value in model.graph.value_info if value.name in names]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    light, _ = hide_data(model)
    try:
        found = followed(light, check_type=True).graph
    except ONNX_ERRORS as err:
        raise ModelError(
            f"graph {model.graph.name!r} contradicts itself ({reason(err)}), expected types "
            f"and shapes that fit; correct what is named, or export with a newer exporter"
        ) from err
    del model.graph.value_info[:]
    model.graph.value_info.extend(found.value_info)
    outputs = {value.name: value for value in found.output}
    for value in model.graph.output:
        if not value.type.tensor_type.HasField("shape") and value.name in outputs:
            value.CopyFrom(outputs[value.name])


def inferred(light: ModelProto, **options: Any) -> ModelProto:
    """What ONNX infers of a model, which tells types and shapes and computes something else.

    Args:
        light: without large data; changed where ONNX has no rule.
        options: of ``onnx.shape_inference.infer_shapes``.
    """
    for node in walk(light):
        if node.op_type in _SHAPE_OF_INPUT and is_default_domain(node):
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    return shape_inference.infer_shapes(light, **options)


def followed(light: ModelProto, **options: Any) -> ModelProto:
    """What ONNX infers of a model, sizes that the graph computes among it, as ``inferred`` has it.

    Not where a list of integers is long: its inference allocates for each element that a file
    declares, 5 GB for 20 million.
    """
    whole = inferred(light, **options)
    graph = whole.graph
    if any(map(_is_long_list, (*graph.input, *graph.value_info, *graph.output))):
        return whole
    training = any(n.op_type == "BatchNormalization" and len(n.output) > 1 for n in walk(light))
    for entry in default_opsets(light):
        if entry.version == _BLIND_RESHAPE and not training:
            entry.version += 1
    return shape_inference.infer_shapes(light, data_prop=True, **options)


def _is_long_list(value: ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    listed = kind.elem_type in _INTEGERS and len(kind.shape.dim) == 1
    return listed and kind.shape.dim[0].dim_value > _MOST_FOLLOWED


def check(model: ModelProto) -> None:
    """Run ONNX's checker; an output without a shape is let through, as runtimes do.

    Raises:
        ModelError: the graph is not valid ONNX.
    """
    light, _ = hide_data(model)
    for value in light.graph.output:
        if not value.type.WhichOneof("value") or value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    try:
        checker.check_model(light)
    except ONNX_ERRORS as err:
        raise ModelError(
            f"graph {model.graph.name!r} is not valid ONNX ({reason(err)}), expected one that "
            f"onnx.checker accepts; correct what is named, or export with a newer exporter"
        ) from err


def values(model: ModelProto) -> dict[str, ValueInfoProto]:
    """Type and shape by tensor name: inputs, outputs and what was inferred."""
    graph = model.graph
    return {v.name: v for group in (graph.value_info, graph.output, graph.input) for v in group}


def static_shape(value: ValueInfoProto | None) -> tuple[int, ...] | None:
    """Shape of a tensor whose dimensions are all numbers, e.g. (1, 3, 32, 32); else None."""
    if value is None or not value.type.tensor_type.HasField("shape"):
        return None
    dims = value.type.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") for dim in dims):
        return None
    return tuple(dim.dim_value for dim in dims)
