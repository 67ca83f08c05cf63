"""Which INT8 arithmetic a graph needs; see ``cpu_isa`` for what there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from engines.onnx_layers import is_dequantized
from engines.openvino.cpu_isa import CpuIsa
from graphs.operators import WEIGHTED_OPS
from graphs.pairs import pairing_axis_of, saturates
from graphs.view import GraphView, Node

__all__ = ["needed_cpu_isa"]


def needed_cpu_isa(model: onnx.ModelProto) -> CpuIsa:
    """What a Q/DQ model needs to be computed as it is written: ``portable`` needs nothing.

    A layer whose right side is no constant (a product of two activations) needs VNNI: its codes
    cannot be known. So does one whose weight codes are not INT8 constants.
    """
    view = GraphView(model)
    for node in view.nodes:
        if node.op_type not in WEIGHTED_OPS:
            continue
        if not all(is_dequantized(view, name) for name in node.inputs[:2]):
            continue  # runs in floating point
        pair = view.producer(node.inputs[1])
        codes = view.initializers.get(pair.inputs[0]) if pair is not None else None
        if codes is None or _saturates(node, numpy_helper.to_array(codes)):
            return "vnni"
    return "portable"


def _saturates(node: Node, codes: NDArray[Any]) -> bool:
    axis = pairing_axis_of(node, codes.shape)
    if axis is None or codes.dtype != np.int8:
        return True
    return saturates(codes, axis)
