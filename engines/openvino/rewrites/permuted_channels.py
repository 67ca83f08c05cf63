"""Channels in another order, kept from OpenVINO's own change of the weights behind them.

OpenVINO 2026.4.1 takes out a Gather that permutes an axis and permutes the weights of the next
convolutions instead, by the same order where it would have to be the opposite: -4 to 1 dB in
float32 and INT8 for every order that is not its own opposite, as the reverse (BGR to RGB) is. It
looks for axes that are counted from the front.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engines.openvino.rewrites.ports import constant_at, rank_of

__all__ = ["keep_permutations"]


def keep_permutations(openvino: Any, network: Any) -> int:
    """Count the axis of each permuting Gather from the end, in ``network`` itself.

    Args:
        openvino: the module.
        network: an ``openvino.Model`` that belongs to the caller.

    Returns:
        The number of Gathers that were changed.
    """
    count = 0
    for op in network.get_ordered_ops():
        if op.get_type_name() != "Gather" or not _permutes(op):
            continue
        axis, rank = int(constant_at(op.input_value(2)).data.item()), rank_of(op.input_value(0))
        if axis >= 0:
            constant = openvino.opset13.constant(np.int64(axis - rank))
            op.input(2).replace_source_output(constant.output(0))
            count += 1
    network.validate_nodes_and_infer_types()
    return count


def _permutes(gather: Any) -> bool:
    """Whether it changes an order into one that is not its own opposite."""
    indices, axis = (constant_at(gather.input_value(index)) for index in (1, 2))
    if indices is None or axis is None or not rank_of(gather.input_value(0)):
        return False
    order = np.asarray(indices.data).reshape(-1) % max(indices.data.size, 1)
    whole = np.array_equal(np.sort(order), np.arange(order.size))
    return whole and not np.array_equal(order[order], np.arange(order.size))
