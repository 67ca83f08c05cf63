"""Models exported in float16, bfloat16 or float64 compute in float32 once prepared."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphs.identity import graph_hash
from quantization import place, prepare

TYPES = {"float16": TensorProto.FLOAT16, "double": TensorProto.DOUBLE}


def conv_model(kind: str, rng: np.random.Generator) -> onnx.ModelProto:
    """Conv → Cast to float → Cast back → Mul by a Constant → output, all of one type."""
    numpy_type = np.dtype("float64" if kind == "double" else kind)
    weight = rng.normal(scale=0.1, size=(16, 16, 3, 3)).astype(numpy_type)
    factor = numpy_helper.from_array(np.array(0.5, numpy_type))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4, name="conv"),
        helper.make_node("Cast", ["c"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["f"], ["h"], to=TYPES[kind]),
        helper.make_node("Constant", [], ["k"], value=factor),
        helper.make_node("Mul", ["h", "k"], ["y"], name="mul"),
        helper.make_node("Identity", ["x"], ["echo"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TYPES[kind], ["N", 16, 6, 6])],
        [info("y", TYPES[kind], ["N", 16, 6, 6]), info("echo", TYPES[kind], ["N", 16, 6, 6])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("kind", TYPES)
def test_inside_is_float32_and_the_signature_stays(kind: str, rng: np.random.Generator) -> None:
    model = conv_model(kind, rng)
    before = model.SerializeToString()
    prepared = prepare(model)
    assert model.SerializeToString() == before
    assert [v.SerializeToString() for v in prepared.graph.input] == [
        v.SerializeToString() for v in model.graph.input
    ]
    assert [(v.name, v.type.tensor_type.elem_type) for v in prepared.graph.output] == [
        ("y", TYPES[kind]),
        ("echo", TYPES[kind]),
    ]
    assert {t.data_type for t in prepared.graph.initializer} == {TensorProto.FLOAT}
    onnx.checker.check_model(prepared, full_check=True)
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    assert place(prepared).int8_mac_share(prepared) == 1.0


@pytest.mark.parametrize("kind", TYPES)
def test_results_agree_with_the_wider_arithmetic(kind: str, rng: np.random.Generator) -> None:
    model = conv_model(kind, rng)
    x = rng.normal(size=(2, 16, 6, 6)).astype("float64" if kind == "double" else kind)
    expected, echo = ReferenceEvaluator(model).run(None, {"x": x})
    found, same = ReferenceEvaluator(prepare(model)).run(None, {"x": x})
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=2e-2, atol=2e-3)
    np.testing.assert_array_equal(same, echo.astype(np.float32).astype(echo.dtype))


def test_infinite_masks_stay_finite(rng: np.random.Generator) -> None:
    model = conv_model("double", rng)
    model.graph.initializer.append(numpy_helper.from_array(np.array(-1e300), "mask"))
    model.graph.node.append(helper.make_node("Add", ["c", "mask"], ["masked"]))
    info = helper.make_tensor_value_info("masked", TensorProto.DOUBLE, None)
    model.graph.output.append(info)
    prepared = prepare(model)
    values = {t.name: numpy_helper.to_array(t) for t in prepared.graph.initializer}
    assert values["mask"] == -np.finfo(np.float32).max


def test_float32_models_are_left_alone(rng: np.random.Generator) -> None:
    model = conv_model("float16", rng)
    once = prepare(model)
    assert sum(node.op_type == "Cast" for node in once.graph.node) == 3
