"""Fourier transforms, written as the products that they are.

    DFT     x of an axis of N values times a matrix of cosines and sines, (N, bins)
    STFT    a convolution of the signal with windowed cosines and sines, one filter a bin and part

TensorRT and OpenVINO read few forms of either, and calibration would see a spectrum whose layers
are hidden. A tensor's real and imaginary part are its last axis, of length 2 (1: real).

Left as they are: transforms along an axis whose length is not known, of a computed window or
length, the inverse of half a spectrum, and those whose matrix would be larger than 64 MiB.

Source: ONNX, operators DFT and STFT, https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from graphs.walk import attributes, operator, walk
from quantization.prepare.writer import Writer

__all__ = ["write_dft", "write_sides", "write_stft"]

_MOST_VALUES = 64 << 18  # of a matrix: 64 MiB in float32
_AXIS_AS_INPUT = 20  # of DFT
_REAL = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})
Floats = NDArray[np.float64]


def write_sides(graph: GraphProto) -> None:
    """State which half of a spectrum an STFT makes: inference takes the default for the other."""
    for node in walk(graph):
        if operator(node) == "STFT" and "onesided" not in attributes(node):
            node.attribute.append(helper.make_attribute("onesided", 1))


def write_dft(writer: Writer, node: NodeProto) -> list[NodeProto]:
    """The nodes that take the place of a DFT; none where it stays."""
    source, given = node.input[0], attributes(node)
    rank, axis = writer.rank(source), _axis(writer, node)
    if rank is None or axis is None or writer.kind(source) not in _REAL:
        return []
    axis, parts = axis % rank, writer.size(source, -1)
    length = writer.size(source, axis)
    points = length if len(node.input) < 2 or not node.input[1] else _whole(writer, node.input[1])
    half, inverse = bool(given.get("onesided", 0)), bool(given.get("inverse", 0))
    if not length or not points or parts not in (1, 2) or (half and (inverse or parts == 2)):
        return []
    bins = points // 2 + 1 if half else points
    if length * parts * bins * 2 > _MOST_VALUES or axis == rank - 1:
        return []
    waves = _waves(points, bins, inverse=inverse)[:length]
    waves = np.pad(waves, ((0, length - len(waves)), (0, 0), (0, 0)))
    # (length, bins, 2) of a real value; i times as much of an imaginary one.
    turned = np.stack([waves, waves[..., ::-1] * (-1, 1)], axis=1)[:, :parts]
    matrix = turned.reshape(length * parts, bins * 2)

    others = [number for number in range(rank - 1) if number != axis]
    order = [*others, axis, rank - 1]
    kept = [0] * len(others)  # as long as they are
    moved = writer.step(node, "Transpose", [source], perm=order)
    rows = _reshape(writer, node, moved, [*kept, length * parts], "rows")
    product = writer.step(
        node, "MatMul", [rows.output[0], _constant(writer, node, "waves", matrix)]
    )
    split = _reshape(writer, node, product, [*kept, bins, 2], "parts")
    back = [int(number) for number in np.argsort(order)]
    return [
        *(moved, rows, product, split),
        writer.step(node, "Transpose", split.output, last=True, perm=back),
    ]


def write_stft(writer: Writer, node: NodeProto) -> list[NodeProto]:
    """The nodes that take the place of an STFT; none where it stays."""
    source, step = node.input[0], _whole(writer, node.input[1])
    window, length = [*node.input[2:], "", ""][:2]
    rank, parts = writer.rank(source), writer.size(source, -1)
    if not step or rank not in (2, 3) or (rank == 3 and parts != 1):
        return []
    if window and window not in writer.constants:
        return []
    if writer.kind(source) not in _REAL or not (window or length):
        return []
    points = _whole(writer, length) if length else None
    weights = numpy_helper.to_array(writer.constants[window]) if window else np.ones(points or 0)
    points = points or len(weights)
    bins = points // 2 + 1 if attributes(node).get("onesided", 1) else points
    if len(weights) != points or points * bins * 2 > _MOST_VALUES:
        return []
    filters = weights[:, None, None] * _waves(points, bins)
    filters = filters.transpose(2, 1, 0).reshape(2 * bins, 1, points)

    if rank == 3:
        signal = writer.step(node, "Transpose", [source], perm=[0, 2, 1])
    else:
        axes = writer.constant(node, "axes", [1], np.int64)
        signal = writer.step(node, "Unsqueeze", [source, axes])
    bank = _constant(writer, node, "filters", filters)
    found = writer.step(node, "Conv", [signal.output[0], bank], strides=[step])
    split = _reshape(writer, node, found, [0, 2, bins, -1], "parts")
    order = [0, 3, 2, 1]
    return [
        *(signal, found, split),
        writer.step(node, "Transpose", split.output, last=True, perm=order),
    ]


def _waves(points: int, bins: int, *, inverse: bool = False) -> Floats:
    """Real and imaginary part of exp(∓2πi n k / N), by n < N and k < bins: (N, bins, 2)."""
    # n k is taken modulo N first: a large argument would cost digits.
    turns = np.outer(np.arange(points), np.arange(bins)) % points / points * 2 * np.pi
    sign, scale = (1, 1 / points) if inverse else (-1, 1)
    return np.stack([np.cos(turns), sign * np.sin(turns)], axis=-1) * scale


def _axis(writer: Writer, node: NodeProto) -> int | None:
    if writer.opset < _AXIS_AS_INPUT:
        return int(attributes(node).get("axis", 1))
    if len(node.input) < 3 or not node.input[2]:
        return -2
    return _whole(writer, node.input[2])


def _whole(writer: Writer, name: str) -> int | None:
    """A constant of one integer; None for what is computed."""
    if name not in writer.constants:
        return None
    values = numpy_helper.to_array(writer.constants[name]).reshape(-1)
    return int(values[0]) if values.size == 1 else None


def _constant(writer: Writer, node: NodeProto, word: str, values: Floats) -> str:
    kind = helper.tensor_dtype_to_np_dtype(writer.kind(node.input[0]))
    return writer.constant(node, word, values, kind)


def _reshape(
    writer: Writer, node: NodeProto, source: NodeProto, shape: list[int], word: str
) -> NodeProto:
    wanted = writer.constant(node, f"shape_of_{word}", shape, np.int64)
    return writer.step(node, "Reshape", [source.output[0], wanted])
