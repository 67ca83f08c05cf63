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

__all__ = ["take_in_pads", "write_output_shapes", "write_pads"]

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
        if pad is None or operator(pad) != "Pad" or not _pads_alike(node, pad, known, makers):
            continue
        windows = _windows(node, known)
        pads = _constant_pads(pad, known, 2 + len(windows))
        total = _joined(node, windows, pads) if pads is not None else None
        if total is not None:
            node.input[0] = pad.input[0]
            set_attribute(node, "auto_pad", None)
            set_attribute(node, "pads", total)
            if operator(node) == "AveragePool":
                set_attribute(node, "count_include_pad", 1)
            changed = True
    return changed


def _windows(node: NodeProto, known: Mapping[str, TensorProto]) -> list[int]:
    """The window of each spatial axis; empty where a convolution's weights are no constant."""
    if operator(node) == "Conv":
        return list(known[node.input[1]].dims[2:]) if node.input[1] in known else []
    return list(attributes(node).get("kernel_shape", ()))


def _constant_pads(pad: NodeProto, known: Mapping[str, TensorProto], rank: int) -> list[int] | None:
    """What a Pad adds before and after each spatial axis; None where it does anything else.

    Pad-18 may name the axes that it pads, from the end, too; else it says them all.
    """
    named = pad.input[3] if len(pad.input) > 3 else ""
    if attributes(pad).get("mode", b"constant") != b"constant":
        return None
    if pad.input[1] not in known or (named and named not in known):
        return None
    numbers = numpy_helper.to_array(known[pad.input[1]])
    axes = numpy_helper.to_array(known[named]).ravel() if named else np.arange(rank)
    if numbers.size != 2 * axes.size or np.any(axes < -rank) or np.any(axes >= rank):
        return None  # a tensor of another rank than the layer takes: who runs it says so
    both = np.zeros((2, rank), np.int64)
    both[:, axes] = numbers.reshape(2, -1)
    if np.any(both < 0) or np.any(both[:, :2]):
        return None
    return [int(each) for each in both[:, 2:].ravel()]


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


def _joined(node: NodeProto, windows: list[int], pads: list[int]) -> list[int] | None:
    """The layer's padding and that of a Pad; None where the layer cannot have it.

    Runtimes refuse a pooling whose padding is as wide as its window; a convolution may have any,
    as a causal one with dilations needs it. Where the last window is rounded up, it may start in
    values, but not in padding.
    """
    given: dict[str, Any] = attributes(node)
    kind = given.get("auto_pad", b"NOTSET")
    own = list(given.get("pads", ()) if kind == b"NOTSET" else ()) or [0] * len(pads)
    if kind not in (b"NOTSET", b"VALID") or not pads or len(own) != len(pads):
        return None
    total = [first + second for first, second in zip(own, pads, strict=True)]
    if operator(node) == "Conv":
        return total
    if given.get("ceil_mode", 0) or any(each != 1 for each in given.get("dilations", ())):
        return None
    if operator(node) == "AveragePool" and any(own) and not given.get("count_include_pad", 0):
        return None  # zeros that count in front of padding that does not
    fits = all(pad < size for pad, size in zip(total, [*windows, *windows], strict=True))
    return total if fits else None


def write_output_shapes(model: ModelProto) -> bool:
    """Take batch and channels out of each ConvTranspose's ``output_shape``; whether any had them.

    ONNX has the spatial axes alone, MindSpore writes all, and onnxruntime refuses those.

    Args:
        model: changed in place.
    """
    known, changed = constants(model.graph), False
    for node in nodes(model):
        if operator(node) != "ConvTranspose" or node.input[1] not in known:
            continue
        sizes = attributes(node).get("output_shape", ())
        if sizes and len(sizes) == len(known[node.input[1]].dims):
            set_attribute(node, "output_shape", list(sizes[2:]))
            changed = True
    return changed


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
