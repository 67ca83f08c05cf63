"""Strides of 1x1 convolutions as a step of their own, for CPUs without VNNI.

With AVX2, OpenVINO 2026.4.1 copies what such a convolution reads to where it has no strides, and
where no more than half of the last block of 16 input channels is used (up to 8, 24, 40, 56, ...:
RegNet's shortcuts) threads write over each other's: the first position of a thread's part of the
batch, or of the output channels, is wrong, now and then (20 dB). A MaxPool of one value picks the
same positions and computes nothing.
"""

from __future__ import annotations

from typing import Any

from engines.openvino.rewrites.ports import is_float

__all__ = ["separate_strides"]

BLOCK, HALF = 16, 8


def separate_strides(openvino: Any, network: Any) -> int:
    """Let a MaxPool take the strides of such convolutions, in ``network`` itself.

    Args:
        openvino: the module.
        network: an ``openvino.Model`` that belongs to the caller, its Q/DQ pairs fused.

    Returns:
        The number of convolutions that have no strides any more.
    """
    found = network.get_ordered_ops()
    if is_float(found):
        return 0
    wrong = [op for op in found if op.get_type_name() == "Convolution" and _is_wrong(op)]
    for convolution in wrong:
        _separate(openvino, convolution)
    network.validate_nodes_and_infer_types()
    return len(wrong)


def _is_wrong(convolution: Any) -> bool:
    given = convolution.get_attributes()
    weight = convolution.input_value(1).get_partial_shape()
    one = weight.is_static and all(size == 1 for size in list(weight.to_shape())[2:])
    padded = any(given["pads_begin"]) or any(given["pads_end"])
    strided = any(step > 1 for step in given["strides"])
    if not one or not strided or padded:
        return False
    return bool(0 < weight.to_shape()[1] % BLOCK <= HALF)


def _separate(openvino: Any, convolution: Any) -> None:
    strides = list(convolution.get_attributes()["strides"])
    nothing, ones = [0] * len(strides), [1] * len(strides)
    data, weight = (convolution.input_value(index) for index in (0, 1))
    picked = openvino.opset1.max_pool(data, strides, nothing, nothing, ones)
    made = openvino.opset13.convolution(picked, weight, ones, nothing, nothing, ones)
    made.set_friendly_name(convolution.get_friendly_name())
    convolution.output(0).replace(made.output(0))
