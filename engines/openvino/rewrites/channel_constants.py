"""Constants with a number for each channel, kept from kernels that read them wrong.

OpenVINO 2026.4.1 lets reductions and INT8 products of two activations (a constant on the left is
one to it) compute what stands behind them, too, and takes its constants along the wrong axis or
from beyond their end:

- a reduction of three axes over its last, GlobalAveragePool among them, in float32 and INT8
  (7 dB, -545 where the numbers beyond are infinite); INT8 ones of four and five axes as well;
- an INT8 product with a Multiply of a vector behind it, a layer scale (-734 to 4 dB), or refused;
- a dense layer with free shapes and a number for each of its rows (11 dB), or refused;
- in front of INT8, factors for one axis and then numbers for another that is as long (6 dB).

A tensor with an axis more is another tensor to it, and takes no time. The slopes of a PRelu are
read along axis 1 where they are as many (8 dB); ONNX has them along the last axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engines.openvino.rewrites.ports import (
    behind,
    constant_at,
    has_weight,
    is_float,
    put_behind,
    rank_of,
)
from engines.openvino.rewrites.reductions import EXTREMES

__all__ = ["separate_channel_constants"]

REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"),
)
SCALED = ("Divide", "Multiply", "PRelu")
ELEMENTWISE = (*SCALED, "Add", "Maximum", "Minimum", "Power", "SquaredDifference", "Subtract")


def separate_channel_constants(openvino: Any, network: Any) -> int:
    """Let no reduction or product take in such a constant, in ``network`` itself.

    Args:
        openvino: the module.
        network: an ``openvino.Model`` that belongs to the caller, its Q/DQ pairs fused.

    Returns:
        The number of operators that compute on a tensor with an axis more.
    """
    count, found = 0, network.get_ordered_ops()
    int8 = not is_float(found)
    for op in found:
        index = 1 if op.get_type_name() == "FakeQuantize" else _constant_input(op)
        if index is None:
            continue
        if op.get_type_name() == "PRelu":
            _state_axis(openvino.opset13, op)
        if int8 and _crosses(op, index):
            before = _unmoved(openvino.opset13, op.input_value(1 - index))
            op.input(1 - index).replace_source_output(before.output(0))
            count += 1
            continue
        maker = _taken_in_by(op, 1 - index)
        if maker is not None:
            _separate(openvino.opset13, op, 1 - index, maker)
            if int8 and maker.get_type_name() in REDUCTIONS:
                _keep_factors_before(openvino.opset13, maker)
            count += 1
    network.validate_nodes_and_infer_types()
    return count


def _constant_input(op: Any) -> int | None:
    """Which input of an elementwise operator has a number for each channel."""
    if op.get_type_name() not in ELEMENTWISE:
        return None
    for index in (0, 1):
        port, other = op.input_value(index), op.input_value(1 - index)
        if constant_at(port) is None or not _lengths(port):
            continue
        if len(port.get_shape()) <= rank_of(other):
            return index
    return None


def _crosses(op: Any, index: int) -> bool:
    """Whether numbers for one axis follow factors for another that is as long."""
    factors = op.input_value(1 - index).get_node()
    other = _constant_input(factors) if factors.get_type_name() == "Multiply" else None
    if other is None or op.get_type_name() == "FakeQuantize":
        return False
    first, second = _lengths(factors.input_value(other)), _lengths(op.input_value(index))
    return first != second and list(first.values()) == list(second.values())


def _lengths(port: Any) -> dict[int, int]:
    """Of the axes of a constant, counted from the last, that are longer than 1."""
    return {axis: size for axis, size in enumerate(reversed(port.get_shape())) if size > 1}


def _taken_in_by(op: Any, index: int) -> Any:
    """The operator before ``op`` whose kernel would compute it wrong; None if there is none."""
    maker = behind(op.input_value(index).get_node(), (*REDUCTIONS, "MatMul"))
    if maker is None:
        return None
    rounds = op.get_type_name() == "FakeQuantize"
    if maker.get_type_name() in REDUCTIONS:
        moved = rounds and maker.get_type_name() in EXTREMES  # in front, by separate_reductions
        return maker if _misreads(maker) and not moved else None
    if rounds:
        return None
    if has_weight(maker):
        of_rows = max(_lengths(op.input_value(1 - index)), default=0) > 0
        return maker if of_rows else None
    return maker if op.get_type_name() in SCALED else None


def _misreads(reduction: Any) -> bool:
    """Whether the channels of what it makes are not axis 1 of what it reads, or it has three."""
    return rank_of(reduction.input_value(0)) <= 3 or 1 in (_axes(reduction) or ())


def _axes(reduction: Any) -> list[int] | None:
    """What is reduced; None where it is computed."""
    port, rank = reduction.input_value(1), rank_of(reduction.input_value(0))
    if port.get_node().get_type_name() == "Range":  # of GlobalAveragePool: all from the first on
        first = constant_at(port.get_node().input_value(0))
        return None if first is None else list(range(int(first.data.item()), rank))
    axes = constant_at(port)
    return None if axes is None else [int(axis) % max(rank, 1) for axis in axes.data.reshape(-1)]


def _state_axis(ops: Any, op: Any) -> None:
    """A PRelu's slopes of one axis with as many as what they are for."""
    slope, rank = op.input_value(1), rank_of(op.input_value(0))
    if len(slope.get_shape()) == 1 and rank > 2 and constant_at(slope) is not None:
        shape = np.array([*[1] * (rank - 1), *slope.get_shape()], np.int64)
        stated = ops.reshape(slope, ops.constant(shape), False)
        op.input(1).replace_source_output(stated.output(0))


def _separate(ops: Any, op: Any, index: int, maker: Any) -> None:
    """End the kernel of ``maker`` before ``op``.

    The axis goes where a reduction has not taken one away, which would be given back to it.
    """
    first = maker.get_type_name() == "MatMul" or rank_of(maker.input_value(0)) - 1 in (
        _axes(maker) or ()
    )
    axis = np.int64(0 if first else -1)
    for number, port in enumerate(op.input_values()):
        if number == index or (not first and len(port.get_shape())):
            wider = ops.unsqueeze(port, ops.constant(axis))
            op.input(number).replace_source_output(wider.output(0))
    op.validate_and_infer_types()

    def narrow(port: Any) -> Any:
        ended = _unmoved(ops, port) if op.get_type_name() in SCALED else op
        return ops.squeeze(ended, ops.constant(axis)).output(0)

    put_behind(op.output(0), narrow)


def _keep_factors_before(ops: Any, reduction: Any) -> None:
    """Let no Multiply in front move behind the reduction."""
    source = reduction.input_value(0)
    if source.get_node().get_type_name() != "Maximum":
        reduction.input(0).replace_source_output(_unmoved(ops, source).output(0))


def _unmoved(ops: Any, port: Any) -> Any:
    """The same values, past which no Multiply moves, as it would where INT8 is near."""
    lowest = -np.inf if port.get_element_type().is_real() else np.iinfo(np.int32).min
    return ops.maximum(port, ops.constant(np.array(lowest, port.get_element_type().to_dtype())))
