"""What no step of a Loop changes is read from outside."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphs.comparable import chosen_shapes, comparable_outputs
from graphs.view import GraphView
from quantization import prepare

NODE = helper.make_node
VALUE = helper.make_tensor_value_info
FLOAT = TensorProto.FLOAT


def decoder(
    *,
    handed: str = "w",
    start: str = "weight",
    scanned: str = "s2",
    ends: bool = False,
    outputs: tuple[str, ...] = ("end", "each"),
) -> onnx.ModelProto:
    """``s = tanh(s w)``, four times or until its sum is large: the weight is a state, too."""
    steps = [NODE("MatMul", ["s", "w"], ["p"]), NODE("Tanh", ["p"], ["s2"])]
    if handed != "w":
        steps.append(NODE("Neg" if handed == "changed" else "Identity", ["w"], [handed]))
    if scanned not in ("s2", "w"):
        steps.append(NODE("Neg", ["s2"], [scanned]))
    if ends:
        steps += [
            NODE("ReduceSum", ["s2"], ["sum"], keepdims=0),
            NODE("Less", ["sum", "m"], ["on"]),
        ]
    else:
        steps.append(NODE("Identity", ["go"], ["on"]))
    body = helper.make_graph(
        steps,
        "body",
        [VALUE("i", TensorProto.INT64, []), VALUE("go", TensorProto.BOOL, []),
         VALUE("w", FLOAT, None), VALUE("s", FLOAT, None)],
        [VALUE("on", TensorProto.BOOL, []), VALUE(handed, FLOAT, None), VALUE("s2", FLOAT, None),
         VALUE(scanned, FLOAT, None)],
    )  # fmt: skip
    rng = np.random.default_rng(0)
    constants = {
        "n": np.int64(4),
        "yes": np.array(True),
        "m": np.float32(0.5),
        start: rng.normal(size=(6, 6)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            NODE("Loop", ["n", "yes", start, "x"], ["w_end", "end", "each"], body=body),
            NODE("MatMul", ["end", "w_end"], ["y"]),
        ],
        "decoder",
        [VALUE("x", FLOAT, [2, 6])],
        [VALUE(name, FLOAT, None) for name in ("y", *outputs)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def states_of(model: onnx.ModelProto) -> list[list[str]]:
    """Of each loop."""
    loops = [node for node in GraphView(model).nodes if node.op_type == "Loop"]
    bodies = [loop.attributes["body"] for loop in loops]
    return [[value.name for value in body.input[2:]] for body in bodies]  # type: ignore[attr-defined]


def assert_same_results(
    model: onnx.ModelProto, prepared: onnx.ModelProto, rng: np.random.Generator
) -> None:
    x = rng.normal(size=(2, 6)).astype(np.float32)
    wanted, found = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"x": x})
        for m in (model, prepared)
    )
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "left"),
    {
        "handed on as it is": ({}, ["s"]),
        "handed on by another name": ({"handed": "same"}, ["s"]),
        "called alike outside": ({"start": "w"}, ["s"]),
        "collected each time": ({"scanned": "w"}, ["s"]),
        "collected are others": ({"scanned": "less"}, ["s"]),
        "given in the end": ({"outputs": ("w_end", "end")}, ["s"]),
        "until something is reached": ({"ends": True}, ["s"]),
        "another inside is called so": ({"start": "s"}, ["w", "s"]),
        "changed": ({"handed": "changed"}, ["w", "s"]),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_states_that_no_step_changes(
    case: str, left: tuple[dict[str, object], list[str]], rng: np.random.Generator
) -> None:
    given, states = left
    model = decoder(**given)  # type: ignore[arg-type]
    prepared = prepare(model)
    assert states_of(prepared) == [states]
    assert prepare(prepared).SerializeToString() == prepared.SerializeToString()
    assert_same_results(model, prepared, rng)


def test_two_loops_whose_weights_are_given(rng: np.random.Generator) -> None:
    model = decoder(outputs=("w_end",))
    second = onnx.NodeProto()
    second.CopyFrom(model.graph.node[0])
    second.input[3] = "end"
    second.output[:] = ["w_end2", "end2", "each2"]
    model.graph.node.insert(1, second)
    model.graph.output.extend([VALUE("w_end2", FLOAT, None), VALUE("end2", FLOAT, None)])
    prepared = prepare(model)
    assert states_of(prepared) == [["s"], ["s"]]
    assert_same_results(model, prepared, rng)


def test_what_ends_by_values_is_not_compared() -> None:
    """INT8 may take another step, and then all behind is of another length."""
    view = GraphView(prepare(decoder()))
    assert chosen_shapes(view) == set()
    assert comparable_outputs(view) == tuple(view.outputs)
    view = GraphView(prepare(decoder(ends=True)))
    assert chosen_shapes(view) >= {"y", "end", "each"}


@pytest.mark.parametrize("axes", [0, 1, 2])
def test_a_condition_is_a_scalar(axes: int, rng: np.random.Generator) -> None:
    branches = {
        name: helper.make_graph(
            [NODE(op_type, ["x"], [name])], name, [], [VALUE(name, FLOAT, [1, 3])]
        )
        for name, op_type in (("then_branch", "Neg"), ("else_branch", "Exp"))
    }
    graph = helper.make_graph(
        [
            NODE("ReduceSum", ["x"], ["sum"], keepdims=0),
            NODE("Reshape", ["sum", "shape"], ["one"]),
            NODE("Greater", ["one", "zero"], ["choice"]),
            NODE("If", ["choice"], ["y"], name="if", **branches),
        ],
        "chosen",
        [VALUE("x", FLOAT, [1, 3])],
        [VALUE("y", FLOAT, [1, 3])],
        [
            numpy_helper.from_array(np.ones(axes, np.int64), "shape"),
            numpy_helper.from_array(np.float32(0), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    prepared = prepare(model)
    view = GraphView(prepared)
    (node,) = [node for node in view.nodes if node.op_type == "If"]
    assert node.name == "if"
    assert view.shape(node.inputs[0]) == ()
    for sign in (1, -1):
        x = sign * np.abs(rng.normal(size=(1, 3))).astype(np.float32)
        (found,) = onnxruntime.InferenceSession(prepared.SerializeToString()).run(None, {"x": x})
        np.testing.assert_allclose(found, -x if sign > 0 else np.exp(x), rtol=1e-6)
