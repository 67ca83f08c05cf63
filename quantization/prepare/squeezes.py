"""Squeeze without axes gets those that it removes, where the rest of the graph says which.

Without them it removes whatever axis has one value at run time: behind a free axis its result has
one rank for a batch of one and another for two, which no engine has, and no shape behind it is
known. ``x.squeeze()`` in front of a Gemm means all axes but the batch; in front of an output that
is declared without a batch it means that, too. So every choice of the free axes is tried, and the
one that ONNX's inference lets through, up to the declared outputs, is what the model means.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper, shape_inference

from graphs.names import Names
from graphs.opset import ONNX_ERRORS, hide_data
from graphs.shapes import values
from graphs.walk import is_default_domain, nodes

__all__ = ["write_squeezed_axes"]

_MOST_FREE_AXES = 4  # each doubles what is tried


def write_squeezed_axes(model: ModelProto) -> bool:
    """Give each Squeeze without axes those that it removes; whether any got them.

    Args:
        model: changed in place; its shapes are inferred.
    """
    shapes, changed = values(model), False
    for position, node in enumerate(nodes(model)):
        if node.op_type != "Squeeze" or not is_default_domain(node) or any(node.input[1:]):
            continue
        value = shapes.get(node.input[0])
        if value is None or not value.type.tensor_type.HasField("shape"):
            continue
        sizes = [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
        found = list(_fitting(model, position, sizes))
        if len(found) == 1 and found[0]:
            _write(model, node, found[0])
            changed = True
    return changed


def _fitting(
    model: ModelProto, position: int, sizes: list[int | None]
) -> Iterator[tuple[int, ...]]:
    """The choices of axes to remove that contradict nothing."""
    ones = [axis for axis, size in enumerate(sizes) if size == 1]
    free = [axis for axis, size in enumerate(sizes) if size is None]
    if not free:
        yield tuple(ones)
    if not free or len(free) > _MOST_FREE_AXES:
        return
    light = hide_data(model)[0]
    del light.graph.value_info[:]  # what is known without the axes
    for count in range(len(free) + 1):
        for removed in combinations(free, count):
            axes = tuple(sorted([*ones, *removed]))
            if _fits(light, position, axes):
                yield axes


def _fits(light: ModelProto, position: int, axes: tuple[int, ...]) -> bool:
    trial = ModelProto()
    trial.CopyFrom(light)
    _write(trial, nodes(trial)[position], axes)
    try:
        shape_inference.infer_shapes(trial, check_type=True, strict_mode=True)
    except ONNX_ERRORS:
        return False
    return True


def _write(model: ModelProto, node: NodeProto, axes: tuple[int, ...]) -> None:
    name = Names(model.graph).tensor(f"{node.output[0]}_axes")
    tensor = numpy_helper.from_array(np.array(axes, np.int64), name)
    model.graph.initializer.append(tensor)
    node.input[:] = [node.input[0], name]
