"""The editor: positions hold until it is finished."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from graphs.edit import GraphEditor, copy_model, insert_nodes, set_attribute
from graphs.view import GraphView
from graphs.walk import nodes, walk

CHAIN = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x) => (float[2] y) { a = Neg(x) b = Abs(a) y = Relu(b) }
"""


def chain() -> onnx.ModelProto:
    return parser.parse_model(CHAIN)


def test_edits_at_many_places_use_the_positions_of_before() -> None:
    model = chain()
    editor, view = GraphEditor(copy_model(model)), GraphView(model)
    neg, absolute, relu = view.nodes
    editor.insert(relu.position, editor.names.node("Exp", ["b"], ["c"], wanted="exp"))
    editor.redirect(relu, 0, "c")
    editor.insert(neg.position, editor.names.node("Sin", ["x"], ["s"], wanted="sin"))
    editor.redirect(neg, 0, "s")
    editor.remove(absolute)
    editor.node(neg).output[0] = "b"
    result = editor.finish()
    onnx.checker.check_model(result)
    assert [node.op_type for node in nodes(result)] == ["Sin", "Neg", "Exp", "Relu"]
    assert [node.op_type for node in nodes(model)] == ["Neg", "Abs", "Relu"]


def test_a_folded_node_leaves_its_value() -> None:
    editor = GraphEditor(chain())
    editor.fold(GraphView(editor.model).nodes[1], np.array([1, 2], np.float32))
    result = editor.finish()
    assert [node.op_type for node in nodes(result)] == ["Neg", "Relu"]
    (constant,) = result.graph.initializer
    assert constant.name == "b"
    assert numpy_helper.to_array(constant).tolist() == [1, 2]


def test_missing_inputs_are_left_open() -> None:
    editor = GraphEditor(chain())
    node = GraphView(editor.model).nodes[0]
    editor.redirect(node, 2, editor.constant("x", np.zeros(1)))
    assert list(editor.node(node).input) == ["x", "", "x_1"]


def test_nodes_are_put_in_front_and_at_the_end() -> None:
    model = chain()
    first, last = (helper.make_node("Exp", ["x"], [name]) for name in "pq")
    insert_nodes(model.graph, {0: [first], 3: [last]})
    assert [node.output[0] for node in nodes(model)] == ["p", "a", "b", "y", "q"]


def test_attributes_are_set_and_taken_away() -> None:
    node = helper.make_node("Softmax", ["x"], ["y"], axis=1)
    set_attribute(node, "axis", 2)
    assert [(a.name, a.i) for a in node.attribute] == [("axis", 2)]
    set_attribute(node, "axis", None)
    assert not node.attribute


def test_a_walk_goes_into_bodies() -> None:
    inner = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["z"])],
        "t",
        [],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [2])],
    )
    branch = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([branch, helper.make_node("Abs", ["y"], ["w"])], "g", [], [])
    assert [node.op_type for node in walk(graph)] == ["If", "Neg", "Neg", "Abs"]
    assert [node.op_type for node in nodes(graph)] == ["If", "Abs"]
