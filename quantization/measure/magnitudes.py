"""How large the values of every float tensor get, without keeping any of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper

from graphs.edit import GraphEditor, copy_model
from graphs.view import GraphView
from graphs.walk import nodes
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
    reduced, outputs = _reduced(model, tensors)
    run = load(reduced)
    found = dict.fromkeys(tensors, 0.0)
    for feed in feeds:
        values = run(feed)
        for name, output in outputs.items():
            found[name] = float(np.fmax(found[name], values[output]))
    return found


def _reduced(model: onnx.ModelProto, tensors: list[str]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A model that gives the largest |x| of each tensor, and under which names."""
    editor = GraphEditor(copy_model(model))
    end, outputs = len(nodes(model)), {}
    del editor.graph.output[:]
    for name in tensors:
        absolute = editor.names.tensor(f"{name}//absolute")
        output = outputs[name] = editor.names.tensor(f"{name}//largest")
        editor.insert(
            end,
            editor.names.node("Abs", [name], [absolute], wanted=absolute),
            editor.names.node("ReduceMax", [absolute], [output], wanted=output, keepdims=0),
        )
        editor.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    return editor.finish(), outputs
