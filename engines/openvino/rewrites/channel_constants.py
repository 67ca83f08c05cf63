"""Constants with a number for each channel, kept from kernels that read them wrong.

OpenVINO 2026.4.1 lets reductions and INT8 products of two activations (a constant on the left is
one to it) compute what stands behind them, too, and takes its constants along the wrong axis or
from beyond their end:

- a reduction of three axes over its last, GlobalAveragePool among them, in float32 and INT8
  (7 dB, -545 where the numbers beyond are infinite); INT8 ones of four and five axes as well;
- an INT8 product with a Multiply of a vector behind it, a layer scale (-734 to 4 dB), or refused.

A tensor with an axis more is another tensor to it, and takes no time. The slopes of a PRelu are
read along axis 1 where they are as many (8 dB); ONNX has them along the last axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engines.openvino.rewrites.ports import behind, constant_at

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
    count = 0
    for op in network.get_ordered_ops():
        index = _constant_input(op)
        if index is None:
            continue
        if op.get_type_name() == "PRelu":
            _state_axis(openvino.opset13, op)
        if _is_taken_in(op, 1 - index):
            _separate(openvino.opset13, op, 1 - index)
            count += 1
    network.validate_nodes_and_infer_types()
    return count


def _constant_input(op: Any) -> int | None:
    """Which input of an elementwise operator has a number for each channel."""
    if op.get_type_name() not in ELEMENTWISE:
        return None
    for index in (0, 1):
        port, other = op.input_value(index), op.input_value(1 - index)
        if constant_at(port) is None or other.get_partial_shape().rank.is_dynamic:
            continue
        shape, rank = list(port.get_shape()), other.get_partial_shape().rank.get_length()
        if max(shape, default=1) > 1 and len(shape) <= rank:
            return index
    return None


def _is_taken_in(op: Any, index: int) -> bool:
    """Whether a kernel before ``op`` would compute it, and wrong."""
    kinds = (*REDUCTIONS, "MatMul") if op.get_type_name() in SCALED else REDUCTIONS
    maker = behind(op.input_value(index).get_node(), kinds)
    return maker is not None and (maker.get_type_name() != "MatMul" or not _has_weight(maker))


def _has_weight(product: Any) -> bool:
    """Whether what a MatMul reads second is made of constants alone."""
    op = product.input_value(1).get_node()
    while op.get_type_name() != "Constant" and op.get_input_size():
        op = op.input_value(0).get_node()
    return bool(op.get_type_name() == "Constant")


def _state_axis(ops: Any, op: Any) -> None:
    """A PRelu's slopes of one axis with as many as what they are for."""
    data, slope = op.input_value(0), op.input_value(1)
    rank = data.get_partial_shape().rank.get_length()
    if len(slope.get_shape()) == 1 and rank > 2 and constant_at(slope) is not None:
        shape = np.array([*[1] * (rank - 1), *slope.get_shape()], np.int64)
        stated = ops.reshape(slope, ops.constant(shape), False)
        op.input(1).replace_source_output(stated.output(0))


def _separate(ops: Any, op: Any, index: int) -> None:
    output, first = op.output(0), np.int64(0)
    names, entries = output.get_tensor().get_names(), output.get_target_inputs()
    wider = ops.unsqueeze(op.input_value(index), ops.constant(first))
    op.input(index).replace_source_output(wider.output(0))
    op.validate_and_infer_types()
    back = ops.squeeze(op, ops.constant(first))
    for entry in entries:
        entry.replace_source_output(back.output(0))
    back.output(0).get_tensor().set_names(names)
    output.get_tensor().set_names(set())
