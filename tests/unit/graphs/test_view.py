"""Who reads a tensor: nodes, the bodies of control flow, or whoever has the outputs."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from graphs.view import GraphView


def branching() -> onnx.ModelProto:
    """y = Relu(a), z = If(c): Neg(b) else b; a, b and the rest are made of x."""
    info = helper.make_tensor_value_info
    bodies = {
        f"{word}_branch": helper.make_graph(
            [helper.make_node(op, ["b"], [word])], word, [], [info(word, TensorProto.FLOAT, None)]
        )
        for word, op in (("then", "Neg"), ("else", "Identity"))
    }
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("Tanh", ["b"], ["y"]),
        helper.make_node("Exp", ["y"], ["w"]),
        helper.make_node("If", ["c"], ["z"], **bodies),
    ]
    inputs = [info("x", TensorProto.FLOAT, [2]), info("c", TensorProto.BOOL, [])]
    outputs = [info(name, TensorProto.FLOAT, None) for name in ("y", "z", "w")]
    return helper.make_model(helper.make_graph(nodes, "branching", inputs, outputs))


def test_a_sole_use_is_that_of_one_node_and_nobody_else() -> None:
    view = GraphView(branching())
    use = view.sole_use("a")
    assert use is not None
    assert (use.node.op_type, use.index) == ("Sigmoid", 0)
    assert view.sole_use("b") is None  # a body reads it, too
    assert view.sole_use("y") is None  # as does whoever asked for it
    assert view.sole_use("z") is None  # no node reads it
    assert view.read_outside >= {"b", "y", "z", "w"}
    assert view.read_outside.isdisjoint({"a", "x", "c"})
