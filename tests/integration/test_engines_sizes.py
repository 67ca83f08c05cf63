"""A batch that the graph reads by Shape: the engine keeps the biases of its INT8 layers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import engines
from engines import BuildOptions
from quantization.measure.execution import load_int8
from tests.networks.running import sqnr_db

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")


def convolution(generator: np.random.Generator, *, sized: bool) -> onnx.ModelProto:
    """Q/DQ, convolution with a bias, Q/DQ; zeros of the batch's size beside it."""
    codes = generator.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8)
    arrays = {
        "codes": codes,
        "scales": np.full(8, 0.02, np.float32),
        "zeros": np.zeros(8, np.int8),
        "zero": np.int8(0),
        "in": np.float32(1 / 127),
        "out": np.float32(0.2),
        "bias": generator.normal(0, 5, 8).astype(np.float32),
        "first": np.int64(0),
        "axis": np.array([0]),
        "width": np.array([10]),
    }
    text = [
        ("QuantizeLinear", ["x", "in", "zero"], "x_q"),
        ("DequantizeLinear", ["x_q", "in", "zero"], "x_d"),
        ("DequantizeLinear", ["codes", "scales", "zeros"], "w"),
        ("Conv", ["x_d", "w", "bias"], "c"),
        ("QuantizeLinear", ["c", "out", "zero"], "c_q"),
        ("DequantizeLinear", ["c_q", "out", "zero"], "y"),
        ("Shape", ["x"], "s"),
        ("Gather", ["s", "first"], "n"),
        ("Unsqueeze", ["n", "axis"], "u"),
        ("Concat", ["u", "width"], "size"),
        ("ConstantOfShape", ["size"], "state"),
    ]
    made = [helper.make_node(op, given, [to]) for op, given, to in text]
    for node in made:
        if node.output[0] in ("w", "size"):
            node.attribute.append(helper.make_attribute("axis", 0))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8, 14, 14])]
    if sized:
        outputs.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, ["N", 10]))
    graph = helper.make_graph(
        made if sized else made[:6],
        "sized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_size_costs_no_bias() -> None:
    generator = np.random.default_rng()
    seed = int(generator.integers(1 << 30))
    compiled = engines.runtime_of("cpu").compiled
    assert compiled is not None
    x = generator.uniform(-1, 1, (2, 3, 16, 16)).astype(np.float32)
    levels = []
    for sized in (False, True):
        model = convolution(np.random.default_rng(seed), sized=sized)
        found = compiled(model, BuildOptions(target="cpu"))({"x": x})
        levels.append(sqnr_db(load_int8(model)({"x": x})["y"], found["y"]))
        if sized:
            np.testing.assert_array_equal(found["state"], np.zeros((2, 10)))
    assert levels[1] > levels[0] - 3, levels
