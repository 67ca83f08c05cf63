"""Sizes to count work by: those that are told, else nominal ones in place of free axes.

One inference for everything that counts multiply-accumulates, so that what placement says and what
an engine is found to run are shares of the same whole. Sizes that a graph computes are followed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import onnx
from onnx import ModelProto, TensorProto, TypeProto

from graphs.edit import copy_model
from graphs.opset import hide_data
from graphs.shapes import followed, inferred
from graphs.walk import subgraphs

__all__ = ["fix_free_axes", "inferred_types", "nominal_types", "shape_of"]

_IMAGE, _LENGTH = 224, 128
_SCALES = (1, 16, 256)  # of them: a wide window leaves nothing of those (sound: 400 values)
_MOST_LOOPS = 8  # one behind the other, whose states are followed


def nominal_types(
    model: ModelProto, names: Collection[str], told: Mapping[str, Sequence[int]]
) -> dict[str, TypeProto]:
    """Type of each tensor, those of bodies too, with sizes for the free axes of inputs.

    Args:
        model: any model.
        names: its inputs.
        told: shapes of inputs; an axis that is fixed keeps its size.
    """
    skeleton = hide_data(model)[0]
    _tell(skeleton, names, told)
    tried = []
    for scale in _SCALES:
        fixed = copy_model(skeleton)
        free = fix_free_axes(fixed, names, scale)
        tried.append(_inferred_everywhere(fixed))
        if not (free and any(map(_is_empty, tried[-1].values()))):
            return tried[-1]
    return tried[0]


def inferred_types(skeleton: ModelProto) -> dict[str, TypeProto]:
    """Type of each tensor of the graph, as ONNX infers it."""
    graph = inferred(skeleton).graph
    return {v.name: v.type for v in (*graph.input, *graph.value_info, *graph.output)}


def shape_of(info: TypeProto) -> tuple[int | None, ...] | None:
    """Sizes of a tensor's axes, None for free ones; None where even their number is unknown."""
    if not info.HasField("tensor_type") or not info.tensor_type.HasField("shape"):
        return None
    dims = info.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)


def _tell(skeleton: ModelProto, names: Collection[str], told: Mapping[str, Sequence[int]]) -> None:
    """Write what is told, and forget what was inferred or declared of free sizes."""
    del skeleton.graph.value_info[:]
    for value in skeleton.graph.input:
        sizes = told.get(value.name, ()) if value.name in names else ()
        for dim, size in zip(value.type.tensor_type.shape.dim, sizes, strict=False):
            if not dim.HasField("dim_value"):
                dim.dim_value = size
    for output in skeleton.graph.output:
        if output.name not in names:
            output.type.tensor_type.ClearField("shape")


def fix_free_axes(skeleton: ModelProto, names: Collection[str], scale: int) -> bool:
    """Write sizes in place of free axes of the inputs named. Returns whether there were any."""
    changed = False
    for value in skeleton.graph.input:
        if value.name not in names:
            continue
        dims = value.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            if not dim.HasField("dim_value"):
                changed = True
                length = _IMAGE if len(dims) == 4 and axis >= 2 else _LENGTH
                dim.dim_value = 1 if axis == 0 else scale * length
    return changed


def _inferred_everywhere(skeleton: ModelProto) -> dict[str, TypeProto]:
    """Types of a graph and, where no outer tensor has the name, of its bodies."""
    whole = followed(skeleton)
    for _ in range(_MOST_LOOPS):
        if not _start_states(whole):
            break
        whole = followed(whole)
    found: dict[str, TypeProto] = {}
    graphs = [whole.graph]
    while graphs:
        graph = graphs.pop(0)
        for value in (*graph.input, *graph.value_info, *graph.output):
            found.setdefault(value.name, value.type)
        for tensor in graph.initializer:
            found.setdefault(tensor.name, _type_of(tensor))
        graphs += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return found


def _start_states(model: ModelProto) -> bool:
    """Give states of loops the sizes that they start with. Returns whether any had none.

    Inference leaves them open, as a turn may change them; an engine's keep their shape.
    """
    graph, changed = model.graph, False
    known = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
    known |= {t.name: onnx.ValueInfoProto(type=_type_of(t)) for t in graph.initializer}
    for node in graph.node:
        for body in subgraphs(node) if node.op_type == "Loop" else ():
            states = zip(body.input[2:], node.input[2:], node.output, strict=False)
            for value, name, output in states:
                if name in known and _unknown(known[name].type) < _unknown(value.type):
                    value.type.CopyFrom(known[name].type)
                    made = known.get(output) or graph.value_info.add(name=output)
                    made.type.CopyFrom(known[name].type)
                    changed = True
                    del body.value_info[:]
                    for result in body.output:
                        result.type.tensor_type.ClearField("shape")
    return changed


def _unknown(info: TypeProto) -> float:
    """How many sizes of a tensor are not known; all where even their number is not."""
    shape = shape_of(info)
    return math.inf if shape is None else shape.count(None)


def _type_of(tensor: TensorProto) -> TypeProto:
    return onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))


def _is_empty(info: TypeProto) -> bool:
    return any(size is not None and size < 1 for size in shape_of(info) or ())
