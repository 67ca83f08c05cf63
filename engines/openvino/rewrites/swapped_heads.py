"""Attention with as many heads as tokens, kept from overwriting its own queries.

OpenVINO 2026.4.1 makes one kernel of an attention, and lets it write its results over its queries
where both have one shape. Where it takes in the Transpose of one and not of the other ((N, T, H, D)
against (N, H, T, D)), that is wrong, and both have one shape where T = H: -1 to 9 dB, in float32
where queries are not transposed on their own (timm's qkv), in INT8 where they are. Neither is taken
in where it has five axes; with free shapes nothing is overwritten.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engines.openvino.rewrites.ports import constant_at

__all__ = ["separate_swapped_heads"]

SWAP = [0, 2, 1, 3]


def separate_swapped_heads(openvino: Any, network: Any) -> int:
    """Swap axes of one size on a tensor with an axis more, in ``network`` itself.

    Args:
        openvino: the module.
        network: an ``openvino.Model`` that belongs to the caller.

    Returns:
        The number of Transposes that were changed.
    """
    found = [op for op in network.get_ordered_ops() if _swaps_equal_axes(op)]
    for op in found:
        _separate(openvino.opset13, op)
    network.validate_nodes_and_infer_types()
    return len(found)


def _swaps_equal_axes(op: Any) -> bool:
    if op.get_type_name() != "Transpose":
        return False
    order, shape = constant_at(op.input_value(1)), op.input_value(0).get_partial_shape()
    if order is None or shape.is_dynamic or list(order.data) != SWAP:
        return False
    return bool(shape[1] == shape[2])


def _separate(ops: Any, transpose: Any) -> None:
    first, order = ops.constant(np.int64(0)), np.array([0, *(axis + 1 for axis in SWAP)])
    wider = ops.unsqueeze(transpose.input_value(0), first)
    swapped = ops.squeeze(ops.transpose(wider, ops.constant(order)), first)
    swapped.set_friendly_name(transpose.get_friendly_name())
    transpose.output(0).replace(swapped.output(0))
