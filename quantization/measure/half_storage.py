"""A float16 graph as a float32 one that rounds wherever a float16 result is stored.

onnxruntime has few float16 kernels on a CPU: it computes in float32 and drops the casts between two
such operators, and with them the rounding that every float16 kernel of a GPU does. Casts that a
graph has itself it keeps.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from graphs.edit import copy_model, replace_nodes
from graphs.names import Names
from graphs.view import GraphView

__all__ = ["rounding_stored"]

_FLOAT, _HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)


def rounding_stored(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in float32 whose results are rounded to float16 where the model's are float16.

    Args:
        model: from :func:`quantization.write.fp16.to_float16`, inputs and outputs in float32.
    """
    view = GraphView(model)
    result, names = copy_model(model), Names(model.graph)
    del result.graph.value_info[:]
    for tensor in result.graph.initializer:
        if tensor.data_type == _HALF:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes: list[NodeProto] = []
    for node in view.nodes:
        halves = [n for n in node.outputs if n and view.element_type(n) == _HALF]
        copy = NodeProto()
        copy.CopyFrom(node.proto)
        exact = {name: names.tensor(f"{name}//exact") for name in halves}
        copy.output[:] = [exact.get(name, name) for name in node.outputs]
        for attribute in copy.attribute:
            if attribute.name in ("to", "dtype", "output_dtype") and attribute.i == _HALF:
                attribute.i = _FLOAT
        nodes.append(copy)
        for name, unrounded in exact.items():
            half = names.tensor(f"{name}//half")
            nodes += [
                helper.make_node("Cast", [unrounded], [half], to=_HALF),
                helper.make_node("Cast", [half], [name], to=_FLOAT),
            ]
    replace_nodes(result.graph, nodes)
    return result
