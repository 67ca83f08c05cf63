"""SAME padding with dilation as pads in numbers: the runtime that calibrates lacks it.

onnxruntime refuses ``auto_pad`` SAME with dilations (TensorRT and OpenVINO take it). The padding of
an axis of n values, kernel k, dilation d and stride s is, by ONNX's definition of Conv,

    total = max((ceil(n / s) - 1) s + (k - 1) d + 1 - n, 0)

which with stride 1 does not depend on n; an odd value goes to the end with SAME_UPPER.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto

from graphs.edit import set_attribute
from graphs.shapes import values
from graphs.walk import attributes, constants, nodes, operator

__all__ = ["write_pads"]

SAME = ("SAME_UPPER", "SAME_LOWER")


def write_pads(model: ModelProto) -> bool:
    """Give dilated convolutions with SAME padding their pads; whether anything changed.

    Args:
        model: changed in place; its shapes are inferred.
    """
    known, shapes = constants(model.graph), values(model)
    changed = False
    for node in nodes(model):
        if operator(node) != "Conv" or node.input[1] not in known:
            continue
        value = shapes.get(node.input[0])
        dims = value.type.tensor_type.shape.dim if value is not None else []
        sizes = [dim.dim_value or None for dim in dims[2:]]
        kernel = list(known[node.input[1]].dims[2:])
        pads = _pads(node, kernel, sizes or [None] * len(kernel))
        if pads is not None:
            set_attribute(node, "auto_pad", None)
            set_attribute(node, "pads", pads)
            changed = True
    return changed


def _pads(node: NodeProto, kernel: list[int], sizes: list[int | None]) -> list[int] | None:
    """Pads before and after each axis; None where nothing is to be done, or not known."""
    given = attributes(node)
    kind = given.get("auto_pad", b"NOTSET").decode()
    dilations = given.get("dilations", [1] * len(kernel))
    strides = given.get("strides", [1] * len(kernel))
    if kind not in SAME or all(dilation == 1 for dilation in dilations):
        return None
    if not len(kernel) == len(dilations) == len(strides) == len(sizes):
        return None  # no convolution: who runs it says so
    before, after = [], []
    for k, d, s, n in zip(kernel, dilations, strides, sizes, strict=True):
        if n is None and s != 1:
            return None
        size = n or 1  # with stride 1 any size gives the same
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if kind == SAME[0] else large)
        after.append(large if kind == SAME[0] else small)
    return [*before, *after]
