"""One node alone: what it reads reaches it as it was stored."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from graphs.view import GraphView
from quantization.improve.walk.one_node import OneNode
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
    found = OneNode(view, load_onnxruntime, view.nodes[0])({x: [values]})
    np.testing.assert_array_equal(found[y][0], values[:, 0])


def test_indices_may_be_of_another_length_in_each_sample(rng: np.random.Generator) -> None:
    """Edges of a graph: a length that one sample has is no other's."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Gather", ["x", "edges"], ["y"])],
        "edges",
        [value("x", TensorProto.FLOAT, ["nodes", 4]), value("edges", TensorProto.INT64, ["edges"])],
        [value("y", TensorProto.FLOAT, ["edges", 4])],
    )
    opset = helper.make_opsetid("", 17)
    view = GraphView(helper.make_model(graph, opset_imports=[opset], ir_version=8))
    values = [rng.standard_normal((nodes, 4)).astype(np.float32) for nodes in (5, 9)]
    edges = [rng.integers(0, 5, count) for count in (7, 11)]
    found = OneNode(view, load_onnxruntime, view.nodes[0])({"x": values, "edges": edges})
    for x, index, y in zip(values, edges, found["y"], strict=True):
        np.testing.assert_array_equal(y, x[index])
