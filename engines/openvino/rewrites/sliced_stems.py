"""A convolution behind slices that take every other pixel, as one convolution of the picture.

Detectors (YOLOX, YOLOv5 up to its fifth version) begin with such a stem: the four quarters of the
pixels become channels, and a convolution reads them. With b the step, quarter g at (r, c) and the
tap (i, j),

    Σ W[o, g·C + k, i, j] · x[k, b (y + i - p) + r, b (z + j - p) + c]

is a convolution of x with stride b and padding b p, whose weight at (b i + r, b j + c) is that of
quarter g. As many products, no slices: 15 % of YOLOX-nano's time on a CPU with VNNI, and the same
numbers (OpenVINO 2026.4, 2026-11-29). Other weights are neighbours then: where none could saturate
a sum of 16 bits (graphs.pairs) and some would, the slices stay.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphs.pairs import saturates

__all__ = ["join_sliced_stems"]

ROWS, COLUMNS = 2, 3  # axes of (N, C, H, W)


class _Quarter(NamedTuple):
    """Where a chain of slices takes its pixels.

    Attributes:
        source: the output that is sliced.
        starts: first row and column.
        steps: of rows and columns.
    """

    source: Any
    starts: tuple[int, int]
    steps: tuple[int, int]


def join_sliced_stems(openvino: Any, network: Any) -> int:
    """Replace each such convolution, in ``network`` itself.

    Args:
        openvino: the module.
        network: an ``openvino.Model`` that belongs to the caller, its Q/DQ pairs fused.

    Returns:
        The number that were replaced.
    """
    ops, count = openvino.opset13, 0
    for layer in network.get_ordered_ops():
        if layer.get_type_name() != "Convolution" or not _is_plain(layer):
            continue
        quarters = _quarters(layer.input_value(0))
        stored = _stored(layer.input_value(1)) if quarters else None
        if stored is None:
            continue
        spread = _spread(stored, quarters)
        if stored.dtype != np.int8 or saturates(stored, 1) or not saturates(spread, 1):
            _replace(ops, layer, quarters, spread)
            count += 1
    network.validate_nodes_and_infer_types()
    return count


def _is_plain(layer: Any) -> bool:
    attributes = layer.get_attributes()
    return attributes["auto_pad"] == "explicit" and list(attributes["dilations"]) == [1, 1]


def _quarters(port: Any) -> list[_Quarter]:
    """The parts of a Concat that are all pixels of one tensor, each once; empty otherwise."""
    concat = port.get_node()
    if concat.get_type_name() != "Concat" or len(port.get_target_inputs()) != 1:
        return []
    if not _is_picture(port) or concat.get_attributes()["axis"] not in (1, -3):
        return []
    parts = [_quarter(part) for part in concat.input_values()]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts) or len({(one.source, one.steps) for one in found}) > 1:
        return []
    source, _, (rows, columns) = found[0]
    every = {(row, column) for row in range(rows) for column in range(columns)}
    # Sizes that are free might not divide, and fail in the Concat.
    fixed = all(source.get_partial_shape()[axis].is_static for axis in (ROWS, COLUMNS))
    whole = len(found) == len(every) > 1 and {one.starts for one in found} == every
    return found if fixed and whole else []


def _is_picture(port: Any) -> bool:
    rank = port.get_partial_shape().rank
    return bool(rank.is_static and rank.get_length() == 4)


def _quarter(port: Any) -> _Quarter | None:
    """What a chain of slices to the end of both axes takes; None for any other."""
    starts, steps = {ROWS: 0, COLUMNS: 0}, {ROWS: 1, COLUMNS: 1}
    while port.get_node().get_type_name() == "Slice":
        op = port.get_node()
        parts = [_integers(op.input_value(index)) for index in range(1, len(op.input_values()))]
        if len(parts) != 4 or any(part is None for part in parts):
            return None
        source = op.input_value(0)
        if not _is_picture(source):
            return None
        shape = source.get_partial_shape()
        for start, stop, step, axis in zip(*(part or [] for part in parts), strict=True):
            axis %= 4
            if axis not in starts or steps[axis] != 1 or step < 1 or start < 0:
                return None
            if not shape[axis].is_static or stop < shape[axis].get_length():
                return None
            starts[axis], steps[axis] = start, step
        port = source
    if not _is_picture(port):
        return None
    return _Quarter(port, (starts[ROWS], starts[COLUMNS]), (steps[ROWS], steps[COLUMNS]))


def _stored(port: Any) -> NDArray[Any] | None:
    """The numbers that a weight is kept in, dequantized by channels or not; None for others."""
    op = port.get_node()
    while op.get_type_name() in ("Multiply", "Subtract", "Convert"):
        if op.get_type_name() != "Convert":
            shape = list(op.input_value(1).get_shape())
            if any(size != 1 for size in shape[1:]):
                return None
        op = op.input_value(0).get_node()
    return np.array(op.data) if op.get_type_name() == "Constant" and op.data.ndim == 4 else None


def _replace(ops: Any, layer: Any, quarters: list[_Quarter], spread: NDArray[Any]) -> None:
    attributes, steps = layer.get_attributes(), quarters[0].steps
    weight = ops.constant(spread)
    strides, before, after = (
        [size * step for size, step in zip(attributes[name], steps, strict=True)]
        for name in ("strides", "pads_begin", "pads_end")
    )
    port = _again(ops, layer.input_value(1), weight)
    new = ops.convolution(quarters[0].source, port, strides, before, after, [1, 1])
    new.set_friendly_name(layer.get_friendly_name())
    layer.output(0).replace(new.output(0))


def _spread(weight: NDArray[Any], quarters: list[_Quarter]) -> NDArray[Any]:
    """(O, n C, kh, kw) as (O, C, b kh, b kw): every quarter's taps where its pixels are."""
    rows, columns = quarters[0].steps
    made, _, height, width = weight.shape
    parts = np.split(weight, len(quarters), axis=1)
    spread = np.zeros((made, parts[0].shape[1], height * rows, width * columns), weight.dtype)
    for (_, (row, column), _), part in zip(quarters, parts, strict=True):
        spread[:, :, row::rows, column::columns] = part
    return spread


def _again(ops: Any, port: Any, weight: Any) -> Any:
    """What is done to the stored weight, done to another constant."""
    op = port.get_node()
    kind = op.get_type_name()
    if kind == "Constant":
        return weight.output(0)
    inner = _again(ops, op.input_value(0), weight)
    if kind == "Convert":
        return ops.convert(inner, op.output(0).get_element_type().get_type_name()).output(0)
    make = ops.multiply if kind == "Multiply" else ops.subtract
    return make(inner, op.input_value(1)).output(0)


def _integers(port: Any) -> list[int] | None:
    op = port.get_node()
    if op.get_type_name() != "Constant":
        return None
    return [int(value) for value in op.data.reshape(-1)]
