"""Largest and smallest values in front of INT8, kept from a wrong kernel of OpenVINO.

OpenVINO 2026.4.1 lets ReduceMax and ReduceMin (GlobalMaxPool is one) write INT8 themselves where a
FakeQuantize follows, also behind an Add or a ReLU, and computes something else: 17 to 30 dB from
the right values where sums and means agree (147 dB). Rounding is monotonic, so a FakeQuantize with
one scale may go in front of the reduction and gives the same numbers; where other operators lie
between, it reads its input through a Reshape, which no kernel takes in.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engines.openvino.rewrites.ports import behind

__all__ = ["EXTREMES", "separate_reductions"]

EXTREMES = ("ReduceMax", "ReduceMin")


def separate_reductions(openvino: Any, network: Any) -> int:
    """Keep each FakeQuantize out of the reduction before it, in ``network`` itself.

    Args:
        openvino: the module.
        network: an ``openvino.Model`` that belongs to the caller, its Q/DQ pairs fused.

    Returns:
        The number of FakeQuantize that were moved or separated.
    """
    count = 0
    for quantizer in network.get_ordered_ops():
        if quantizer.get_type_name() != "FakeQuantize" or not _one_scale(quantizer):
            continue
        first = quantizer
        while (maker := first.input_value(0).get_node()).get_type_name() in EXTREMES:
            first = _move_up(openvino.opset13, first, maker)  # of the largest value of largest ones
        apart = behind(maker, EXTREMES) is not None
        if apart:
            _separate(openvino.opset13, first)
        count += apart or first is not quantizer
    network.validate_nodes_and_infer_types()
    return count


def _one_scale(quantizer: Any) -> bool:
    limits = [quantizer.input_value(index).get_node() for index in (1, 2, 3, 4)]
    return all(op.get_type_name() == "Constant" and op.data.size == 1 for op in limits)


def _move_up(ops: Any, quantizer: Any, reduction: Any) -> Any:
    """``FQ(max(x))`` → ``max(FQ(x))``, the new FQ; other readers of the reduction keep it."""
    rounded = _quantizer_of(ops, quantizer, reduction.input_value(0))
    make = ops.reduce_max if reduction.get_type_name() == "ReduceMax" else ops.reduce_min
    axes, keep = reduction.input_value(1), reduction.get_attributes()["keep_dims"]
    moved = make(rounded, axes, keep)
    moved.set_friendly_name(reduction.get_friendly_name())
    quantizer.output(0).replace(moved.output(0))
    return rounded


def _separate(ops: Any, quantizer: Any) -> None:
    """``FQ(x)`` → the same on a flat view of x."""
    source = quantizer.input_value(0)
    flat = ops.reshape(source, ops.constant(np.array([-1], np.int64)), False)
    rounded = _quantizer_of(ops, quantizer, flat.output(0))
    back = ops.reshape(rounded, ops.shape_of(source), False)
    quantizer.output(0).replace(back.output(0))


def _quantizer_of(ops: Any, quantizer: Any, source: Any) -> Any:
    limits = [quantizer.input_value(index) for index in (1, 2, 3, 4)]
    made = ops.fake_quantize(source, *limits, quantizer.get_attributes()["levels"])
    made.set_friendly_name(quantizer.get_friendly_name())
    return made
