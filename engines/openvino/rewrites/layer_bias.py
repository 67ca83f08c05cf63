"""A bias for every layer, for OpenVINO.

With free shapes, OpenVINO 2026.4.1 computes nonsense behind an INT8 convolution or matrix product
that has no bias and whose result is read more than once (an output of the network, a reader in
float): of random networks with such layers 3 of 100 gave results that had nothing to do with the
right ones, and none of those with a bias in every layer. With fixed shapes it does the same where
it has no kernels newer than SSE4.1 (3.7 dB).

With fixed shapes it joins products of two axes to one kernel and computes nonsense there (-170 dB)
where one without bias is read by the next through no more than limits. A bias that is the same
number for all channels is none to it.

A size is such a reader, too: OpenVINO takes the batch of a ``ShapeOf`` from any tensor that has
it, an INT8 layer's result among them, and loses the layer's bias (7 dB for 19). It follows sizes
through all that moves them, but not through a Maximum.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engines.openvino.rewrites.ports import (
    LAYERS,
    constant_at,
    has_weight,
    is_float,
    put_behind,
    readers,
)

__all__ = ["add_missing_biases", "hide_sizes"]

TRANSPOSED = ("ConvolutionBackpropData", "GroupConvolutionBackpropData")
NOTHING = 1e-30  # an exact zero would be taken out again


def add_missing_biases(openvino: Any, network: Any) -> int:
    """Add next to nothing to the result of each layer without a bias, in ``network`` itself.

    It is computed with the layer and takes no time.

    Args:
        openvino: the module.
        network: an ``openvino.Model`` that belongs to the caller.

    Returns:
        The number of biases that were added; 0 where all shapes are fixed and nothing is INT8.
    """
    found = network.get_ordered_ops()
    if not network.is_dynamic() and is_float(found):
        return 0
    kinds = (*LAYERS, *TRANSPOSED)
    bare = [op for op in found if op.get_type_name() in kinds and not _has_bias(op)]
    for op in bare:
        _put_behind(op, openvino.opset13, "add", _nearly_nothing(op))
    network.validate_nodes_and_infer_types()
    return len(bare)


def hide_sizes(openvino: Any, network: Any) -> int:
    """Keep OpenVINO from reading sizes off INT8 layers, in ``network`` itself.

    Args:
        openvino: the module.
        network: an ``openvino.Model`` that belongs to the caller, its Q/DQ pairs fused.

    Returns:
        The number of sizes that were hidden; 0 where all shapes are fixed or nothing is INT8.
    """
    found = network.get_ordered_ops()
    if not network.is_dynamic() or is_float(found):
        return 0
    count = 0
    for op in found:
        if op.get_type_name() == "ShapeOf":
            _put_behind(op, openvino.opset13, "maximum", 0)
            count += 1
    network.validate_nodes_and_infer_types()
    return count


def _nearly_nothing(op: Any) -> Any:
    """Next to nothing, of a dense layer another number for each channel.

    A product of two activations may be joined to an attention, which takes no such numbers where
    sizes are free, and OpenVINO ends ("Cannot get length of dynamic dimension", "OC: 0").
    """
    shape = op.output(0).get_partial_shape()
    if op.get_type_name() != "MatMul" or shape.rank.is_dynamic or not shape.rank.get_length():
        return NOTHING  # two vectors make one number
    if not shape[-1].is_static or not has_weight(op):
        return NOTHING
    return NOTHING * np.arange(1, shape[-1].get_length() + 1)


def _put_behind(op: Any, ops: Any, operator: str, value: Any) -> None:
    """Let all that reads ``op`` read what ``operator`` makes of it and a constant."""
    constant = ops.constant(np.asarray(value, op.output(0).get_element_type().to_dtype()))
    put_behind(op.output(0), lambda port: getattr(ops, operator)(port, constant).output(0))


def _has_bias(op: Any) -> bool:
    """Whether an Add of a constant follows; OpenVINO shapes ONNX's biases by the layer's rank.

    One of zeros, as layers that were not trained have it, is taken out when it compiles.
    """
    found = readers(op.output(0))
    if len(found) != 1 or found[0].get_type_name() != "Add":
        return False
    biases = (constant_at(port) for port in found[0].input_values())
    return any(bias is not None and np.any(bias.data) for bias in biases)
