"""One node alone: what it reads reaches it as it was stored."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from graphs.view import GraphView
from quantization.improve.walk import run_node
from quantization.measure.execution import load_onnxruntime
from tests.networks.builder import Builder


def test_a_scalar_constant_stays_a_scalar(rng: np.random.Generator) -> None:
    """Gather with a scalar index drops its axis: a class token on its way into a Gemm."""
    b = Builder()
    x = b.input("x", [1, 5, 8])
    y = b.op("Gather", x, b.constant(np.array(0, np.int64)), axis=1)
    output = helper.make_tensor_value_info(y, TensorProto.FLOAT, [1, 8])
    graph = helper.make_graph(b.nodes, "class_token", b.inputs, [output], b.initializers)
    opset = helper.make_opsetid("", 17)
    view = GraphView(helper.make_model(graph, opset_imports=[opset], ir_version=8))
    values = rng.standard_normal((1, 5, 8)).astype(np.float32)
    found = run_node(view, load_onnxruntime, view.nodes[0], {x: [values]})
    np.testing.assert_array_equal(found[y][0], values[:, 0])
