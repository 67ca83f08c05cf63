"""Padding where the layer that reads it can say it itself.

**SAME padding with dilation** is written in numbers, because the runtime that calibrates lacks it:
onnxruntime refuses ``auto_pad`` SAME with dilations (TensorRT and OpenVINO take it). The padding of
an axis of n values, kernel k, dilation d and stride s is, by ONNX's definition of Conv,

    total = max((ceil(n / s) - 1) s + (k - 1) d + 1 - n, 0)

which with stride 1 does not depend on n; an odd value goes to the end with SAME_UPPER.

**A Pad of its own** is taken in by what pads with the same value: zeros by a convolution, and by an
average that counts its padding; -inf by a MaxPool, and zeros where no value is below zero. So there
is no tensor of -inf, whose range nobody could take. (TensorRT-RTX 1.7 joins zeros by itself: the
same 17 kernels of a network with four such Pads.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from graphs.edit import set_attribute
from graphs.operators import POSITIVE_OPS
from graphs.shapes import values
from graphs.walk import attributes, constants, nodes, operator, producers

__all__ = ["take_in_pads", "write_pads"]

SAME = ("SAME_UPPER", "SAME_LOWER")
_TAKING = ("AveragePool", "Conv", "MaxPool")
_LOWEST = float(np.finfo(np.float32).min)  # exporters write it for -inf; no value is below either


def take_in_pads(model: ModelProto) -> bool:
    """Let convolutions and poolings pad what a Pad in front of them does; whether any did.

    The Pad is left for others that read it.

    Args:
        model: changed in place.
    """
    known, makers = constants(model.graph), producers(model.graph)
    changed = False
    for node in nodes(model):
        pad = makers.get(node.input[0]) if operator(node) in _TAKING else None
        if pad is None or operator(pad) != "Pad":
            continue
        pads = _constant_pads(pad, known)
        if pads is None or not _pads_alike(node, pad, known, makers):
            continue
        total = _joined(node, pads, known)
        if total is not None:
            node.input[0] = pad.input[0]
            set_attribute(node, "auto_pad", None)
            set_attribute(node, "pads", total)
            if operator(node) == "AveragePool":
                set_attribute(node, "count_include_pad", 1)
            changed = True
    return changed


def _constant_pads(pad: NodeProto, known: Mapping[str, TensorProto]) -> list[int] | None:
    """What a Pad adds before and after each spatial axis; None where it does anything else."""
    if attributes(pad).get("mode", b"constant") != b"constant" or pad.input[1] not in known:
        return None
    numbers = numpy_helper.to_array(known[pad.input[1]])
    if any(pad.input[3:]) or numbers.size % 2:  # the axes that are padded are named, not all
        return None
    before, after = numbers.reshape(2, -1).tolist()
    if numbers.min(initial=0) < 0 or any(before[:2]) or any(after[:2]):
        return None
    return [*before[2:], *after[2:]]


def _pads_alike(
    node: NodeProto,
    pad: NodeProto,
    known: Mapping[str, TensorProto],
    makers: Mapping[str, NodeProto],
) -> bool:
    """Whether the layer's own padding counts for it as the value of the Pad does."""
    name = pad.input[2] if len(pad.input) > 2 else ""
    constant = numpy_helper.to_array(known[name]) if name in known else np.zeros(0 if name else 1)
    if constant.size != 1:
        return False
    value = float(constant.item())
    if operator(node) != "MaxPool":
        return value == 0
    if len([output for output in node.output if output]) > 1:
        return False  # indices count the padding
    maker = makers.get(pad.input[0])
    positive = maker is not None and operator(maker) in POSITIVE_OPS
    return value <= _LOWEST or (value == 0 and positive)


def _joined(node: NodeProto, pads: list[int], known: Mapping[str, TensorProto]) -> list[int] | None:
    """The layer's padding and that of a Pad; None where the layer cannot have it.

    Runtimes refuse a pooling whose padding is as wide as its window. Where the last window is
    rounded up, it may start in values, but not in padding.
    """
    given: dict[str, Any] = attributes(node)
    if operator(node) == "Conv":
        kernel = list(known[node.input[1]].dims[2:]) if node.input[1] in known else []
    else:
        kernel = list(given.get("kernel_shape", ()))
        if given.get("ceil_mode", 0) or any(each != 1 for each in given.get("dilations", ())):
            return None
    kind = given.get("auto_pad", b"NOTSET")
    if kind not in (b"NOTSET", b"VALID"):
        return None
    own = list(given.get("pads", ()) if kind == b"NOTSET" else ()) or [0] * len(pads)
    if len(pads) != 2 * len(kernel) or len(own) != len(pads):
        return None
    if operator(node) == "AveragePool" and any(own) and not given.get("count_include_pad", 0):
        return None  # zeros that count in front of padding that does not
    total = [first + second for first, second in zip(own, pads, strict=True)]
    fits = all(pad < size for pad, size in zip(total, [*kernel, *kernel], strict=True))
    return total if fits else None


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
