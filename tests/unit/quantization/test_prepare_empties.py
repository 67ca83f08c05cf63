"""Constants without elements: what a Loop grows from, what a branch gives for nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphs.identity import graph_hash
from graphs.view import GraphView
from graphs.walk import subgraphs, walk
from quantization import prepare
from tests.odd_models import run

NODE = helper.make_node
VALUE = helper.make_tensor_value_info
EMPTY = numpy_helper.from_array(np.zeros((0, 4), np.float32), "nothing")


def growing() -> onnx.ModelProto:
    """Rows of ``x`` one after the other, joined to what starts empty."""
    body = helper.make_graph(
        [
            NODE("Gather", ["x", "i"], ["row"]),
            NODE("Unsqueeze", ["row", "zero"], ["one"]),
            NODE("Concat", ["s", "one"], ["t"], axis=0),
            NODE("Identity", ["c"], ["d"]),
        ],
        "body",
        [VALUE("i", TensorProto.INT64, []), VALUE("c", TensorProto.BOOL, []),
         VALUE("s", TensorProto.FLOAT, [None, 4])],
        [VALUE("d", TensorProto.BOOL, []), VALUE("t", TensorProto.FLOAT, [None, 4])],
        [numpy_helper.from_array(np.array([0]), "zero")],
    )  # fmt: skip
    constants = [numpy_helper.from_array(np.array(3), "n"), EMPTY]
    return model_of([NODE("Loop", ["n", "", "nothing"], ["y"], body=body)], constants)


def chosen() -> onnx.ModelProto:
    """``x`` or nothing, by its largest value."""
    then = helper.make_graph(
        [NODE("Identity", ["nothing"], ["a"])], "t", [], [VALUE("a", 1, [None, 4])], [EMPTY]
    )
    other = helper.make_graph([NODE("Relu", ["x"], ["b"])], "e", [], [VALUE("b", 1, [None, 4])])
    nodes = [
        NODE("ReduceMax", ["x"], ["m"], keepdims=0),
        NODE("Less", ["m", "half"], ["k"]),
        NODE("If", ["k"], ["y"], then_branch=then, else_branch=other),
    ]
    return model_of(nodes, [numpy_helper.from_array(np.float32(0.5), "half")])


def model_of(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "empties",
        [VALUE("x", TensorProto.FLOAT, [5, 4])],
        [VALUE("y", TensorProto.FLOAT, [None, 4])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("model", [growing(), chosen()], ids=["growing", "chosen"])
def test_empty_constants_are_made(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    prepared = prepare(model)
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    graphs = [prepared.graph, *(body for node in walk(prepared) for body in subgraphs(node))]
    stored = [tensor for graph in graphs for tensor in graph.initializer]
    assert not [tensor.name for tensor in stored if 0 in tensor.dims]
    assert [node.op_type for node in walk(prepared)].count("ConstantOfShape") == 1
    for x in (rng.standard_normal((5, 4)), -np.ones((5, 4))):
        feeds = {"x": x.astype(np.float32)}
        np.testing.assert_array_equal(run(prepared, feeds)[0], run(model, feeds)[0])


def test_lists_of_none_stay() -> None:
    model = model_of(
        [NODE("Resize", ["x", "roi", "scales"], ["y"])],
        [
            numpy_helper.from_array(np.zeros(0, np.float32), "roi"),
            numpy_helper.from_array(np.array([2, 1], np.float32), "scales"),
        ],
    )
    view = GraphView(prepare(model))
    assert [node.op_type for node in view.nodes] == ["Resize"]
