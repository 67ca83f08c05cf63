"""Upsample of opsets 7 and 9: the converter renames its output, which may be the graph's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import quantization


@pytest.mark.parametrize("opset", [7, 9])
@pytest.mark.parametrize("is_output", [True, False])
def test_upsample_keeps_its_output_name(
    rng: np.random.Generator, opset: int, *, is_output: bool
) -> None:
    scales = [1.0, 1.0, 2.0, 2.0]
    upsample = helper.make_node("Upsample", ["m", "s"][: 1 + (opset == 9)], ["u"], mode="nearest")
    if opset == 7:
        upsample.attribute.append(helper.make_attribute("scales", scales))
    nodes = [helper.make_node("Relu", ["x"], ["m"]), upsample]
    if not is_output:
        nodes.append(helper.make_node("Neg", ["u"], ["n"]))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "up",
        [info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [info("u" if is_output else "n", TensorProto.FLOAT, [1, 3, 8, 8])],
        [numpy_helper.from_array(np.array(scales, np.float32), "s")] if opset == 9 else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    prepared = quantization.prepare(model)
    x = rng.normal(size=(1, 3, 4, 4)).astype(np.float32)
    expected = np.maximum(x, 0).repeat(2, axis=2).repeat(2, axis=3)
    (found,) = ReferenceEvaluator(prepared).run(None, {"x": x})
    np.testing.assert_array_equal(found, expected if is_output else -expected)
