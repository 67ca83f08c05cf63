"""How large the values of every float tensor get, without keeping any of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper

from graphs.view import GraphView
from quantization.measure.execution import Arrays, Load

__all__ = ["largest_magnitudes"]


def largest_magnitudes(
    model: onnx.ModelProto, load: Load, feeds: Iterable[Arrays]
) -> dict[str, float]:
    """Largest |x| of each float32 tensor that the top-level graph computes, over all feeds.

    The reductions are nodes of the graph, so that no run holds more activations than the model's.

    Args:
        model: with or without Q/DQ.
        load: runs it.
        feeds: inputs of the model.

    Raises:
        ModelError: the model does not run.
    """
    view = GraphView(model)
    tensors = [
        name
        for node in view.nodes
        for name in node.outputs
        if name and view.element_type(name) == TensorProto.FLOAT and not view.is_constant(name)
    ]
    run = load(_reduced(model, tensors))
    found = dict.fromkeys(tensors, 0.0)
    for feed in feeds:
        values = run(feed)
        for number, name in enumerate(tensors):
            found[name] = float(np.fmax(found[name], values[_output(number)]))
    return found


def _reduced(model: onnx.ModelProto, tensors: list[str]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    for number, name in enumerate(tensors):
        absolute, output = f"{_output(number)}.abs", _output(number)
        copy.graph.node.append(helper.make_node("Abs", [name], [absolute], name=absolute))
        copy.graph.node.append(
            helper.make_node("ReduceMax", [absolute], [output], name=output, keepdims=0)
        )
        copy.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    return copy


def _output(number: int) -> str:
    return f"//magnitude/{number}"
