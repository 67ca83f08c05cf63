"""Layers that give out codes: their weights and biases divided by the scale of what reads them.

    FakeQuantize(W x + b; 0, 255 s) = s FakeQuantize((W / s) x + b / s; 0, 255)

OpenVINO multiplies an INT8 layer's sums by the weights' scales anyway; divided by s beforehand they
are codes, and the step that would divide each of them is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.openvino.rewrites.ports import LAYERS, constant_at, readers

__all__ = ["divide_layer", "is_layer_result"]

MOVES_WEIGHTS = ("Reshape", "Transpose")


def divide_layer(ops: Any, port: Any, unit: float) -> bool:
    """Divide a layer's results by ``unit``, where one operator reads them, which is to know.

    Args:
        ops: of OpenVINO.
        port: an output that may be that of an INT8 layer, with or without a constant bias.
        unit: more than 0.

    Returns:
        Whether it was done: the layer's scales are its own, and stay finite and above 0.
    """
    layer, bias = _layer_and_bias(port)
    if layer is None or len(readers(port)) != 1:
        return False
    scaled = _own_scales(layer)
    if scaled is None:
        return False
    with np.errstate(over="ignore", under="ignore"):
        divided = (_values(scaled.input_value(1)) / unit).astype(np.float32)
    if not (np.isfinite(divided) & (divided > 0)).all():
        return False
    scaled.input(1).replace_source_output(ops.constant(divided).output(0))
    if bias is not None:
        bias.replace_source_output(_divided(ops, bias.get_source_output(), unit))
    return True


def is_layer_result(port: Any) -> bool:
    """Whether ``port`` gives what a layer does, with its bias or without."""
    return _layer_and_bias(port)[0] is not None


def _layer_and_bias(port: Any) -> tuple[Any, Any]:
    """The layer whose results ``port`` gives, and the Add's input that is its constant bias."""
    op = port.get_node()
    if op.get_type_name() in LAYERS:
        return op, None
    if op.get_type_name() != "Add":
        return None, None
    for index in (0, 1):
        layer, bias = op.input_value(1 - index).get_node(), op.input(index)
        if layer.get_type_name() in LAYERS and constant_at(bias.get_source_output()) is not None:
            return (layer, bias) if len(readers(layer.output(0))) == 1 else (None, None)
    return None, None


def _own_scales(layer: Any) -> Any:
    """The Multiply of a layer's INT8 weights by their scales; None if others read it, too."""
    port = layer.input_value(1)
    while port.get_node().get_type_name() in MOVES_WEIGHTS and len(readers(port)) == 1:
        port = port.get_node().input_value(0)
    op = port.get_node()
    if op.get_type_name() != "Multiply" or len(readers(port)) != 1:
        return None
    return op if constant_at(op.input_value(1)) is not None else None


def _values(port: Any) -> NDArray[np.float64]:
    data = constant_at(port).data
    return np.asarray(data, np.float64).reshape(list(port.get_shape()))


def _divided(ops: Any, port: Any, unit: float) -> Any:
    """A constant bias divided by ``unit``, in the same shape, whatever says what that is."""
    op = port.get_node()
    if op.get_type_name() == "Reshape":
        inner, shape = _divided(ops, op.input_value(0), unit), op.input_value(1)
        return ops.reshape(inner, shape, op.get_attributes()["special_zero"]).output(0)
    return ops.constant((np.asarray(op.data, np.float64) / unit).astype(np.float32)).output(0)
