"""Shapes of what a Loop hands from step to step."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from graphs.view import GraphView
from quantization import prepare

NODE = helper.make_node
VALUE = helper.make_tensor_value_info
CONV = [NODE("Conv", ["s", "w"], ["c"], pads=[1, 1, 1, 1]), NODE("Tanh", ["c"], ["out"])]
# Name → body that makes "out" of the state "s", and the shape that every step leaves.
BODIES = {
    "kept": (CONV, (None, 4, 6, 6)),
    "one side grows": ([NODE("Concat", ["s", "s"], ["out"], axis=3)], (None, 4, 6, None)),
    "another rank": ([NODE("Unsqueeze", ["s", "axis"], ["out"])], None),
    "turned": ([NODE("Transpose", ["s"], ["out"], perm=[0, 1, 3, 2])], (None, 4, 6, 6)),
}


def looped(body: list[onnx.NodeProto], *, stale: bool = False) -> onnx.ModelProto:
    """``x`` through a Loop of one step (a rank may not grow twice), then read as it is."""
    inner = helper.make_graph(
        [*body, NODE("Identity", ["cond"], ["on"])],
        "body",
        [VALUE("i", TensorProto.INT64, []), VALUE("cond", TensorProto.BOOL, []),
         VALUE("s", TensorProto.FLOAT, None)],
        [VALUE("on", TensorProto.BOOL, []), VALUE("out", TensorProto.FLOAT, None)],
    )  # fmt: skip
    constants = {
        "n": np.int64(1),
        "yes": np.array(True),
        "axis": np.array([0]),
        "w": np.random.default_rng(0).normal(size=(4, 4, 3, 3)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            NODE("Loop", ["n", "yes", "x"], ["l"], body=inner, name="loop"),
            NODE("Relu", ["l"], ["y"]),
        ],
        "g",
        [VALUE("x", TensorProto.FLOAT, ["N", 4, 6, 6])],
        [VALUE("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
        value_info=[VALUE("l", TensorProto.FLOAT, [7, 7])] * stale,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("stale", [False, True], ids=["untold", "told wrong"])
@pytest.mark.parametrize("name", BODIES)
def test_shapes_that_no_step_changes(name: str, stale: bool, rng: np.random.Generator) -> None:
    body, shape = BODIES[name]
    model = looped(body, stale=stale)
    prepared = prepare(model)
    view = GraphView(prepared)
    assert view.shape("l") == shape
    assert view.shape("y") == shape
    (loop,) = [node for node in view.nodes if node.op_type == "Loop"]
    state = loop.attributes["body"].input[2].type.tensor_type  # type: ignore[attr-defined]
    assert state.HasField("shape") == (shape is not None)
    again = prepare(prepared)
    assert again.SerializeToString() == prepared.SerializeToString()
    x = rng.normal(size=(2, 4, 6, 6)).astype(np.float32)
    wanted, found = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0]
        for m in (looped(body), prepared)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_state_that_is_an_output_of_the_graph() -> None:
    """Its shape stands with the output; to say it beside would go on without end."""
    model = looped(CONV)
    model.graph.node.pop()
    model.graph.node[0].output[0] = "y"
    prepared = prepare(model)
    assert GraphView(prepared).shape("y") == (None, 4, 6, 6)
    assert [value.name for value in prepared.graph.value_info].count("y") == 0


@pytest.mark.parametrize("handed", ["cond", "on"])
def test_a_missing_condition_holds(handed: str, rng: np.random.Generator) -> None:
    """What the body makes of a condition that it does not get is left to the runtime."""
    model = looped(CONV)
    loop = model.graph.node[0]
    loop.input[1] = ""
    if handed == "on":  # its own condition
        inner = loop.attribute[0].g
        inner.node[-1].CopyFrom(NODE("Not", ["cond"], ["on"]))
    prepared = prepare(model)
    view = GraphView(prepared)
    (node,) = [node for node in view.nodes if node.op_type == "Loop"]
    condition = view.constant(node.inputs[1]) if node.inputs[1] else None
    assert (condition is not None and bool(condition)) == (handed == "cond")
    x = rng.normal(size=(2, 4, 6, 6)).astype(np.float32)
    wanted, found = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0]
        for m in (model, prepared)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("listed", [["count"], ["count", ""]])
def test_a_condition_that_is_not_listed_holds(listed: list[str]) -> None:
    body = helper.make_graph(
        [NODE("Identity", ["cond"], ["on"]), NODE("Cast", ["i"], ["turn"], to=TensorProto.FLOAT)],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("turn", TensorProto.FLOAT, []),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", listed, ["turns"], body=body, name="loop")],
        "counted",
        [helper.make_tensor_value_info("count", TensorProto.INT64, [])],
        [helper.make_tensor_value_info("turns", TensorProto.FLOAT, ["N"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    prepared = prepare(model)
    (node,) = [node for node in GraphView(prepared).nodes if node.op_type == "Loop"]
    assert node.inputs[0] == "count"
    assert bool(GraphView(prepared).constant(node.inputs[1]))
    session = onnxruntime.InferenceSession(prepared.SerializeToString())
    assert session.run(None, {"count": np.array(3)})[0].tolist() == [0.0, 1.0, 2.0]
