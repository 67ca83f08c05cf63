"""Weights that layers read along different axes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from graphs.identity import graph_hash
from graphs.view import GraphView
from quantization import prepare
from quantization.placement.weights import channel_axis
from tests.odd_models import run

BODIES = {
    "conv and its transpose": (
        "float[N,4,8,8] x",
        "a = Conv <pads=[1,1,1,1]> (x, w) r = Relu (a) y = ConvTranspose <pads=[1,1,1,1]> (r, w)",
        (8, 4, 3, 3),
    ),
    "an autoencoder": (
        "float[N,16] x",
        "a = Gemm (x, w) r = Relu (a) y = Gemm <transB=1> (r, w)",
        (16, 24),
    ),
    "square": (
        "float[N,16] x",
        "a = MatMul (x, w) r = Relu (a) y = Gemm <transB=1> (r, w)",
        (16, 16),
    ),
    "the same way twice": (
        "float[N,16] x",
        "a = MatMul (x, w) r = Relu (a) y = Gemm (r, w)",
        (16, 16),
    ),
}


def tied(name: str) -> onnx.ModelProto:
    value, body, shape = BODIES[name]
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g ({value}) => (y) {{ {body} }}'
    )
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    weight = np.random.default_rng(3).standard_normal(shape) / np.sqrt(shape[0])
    weight *= np.geomspace(0.1, 10, shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))
    model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), "w"))
    return model


@pytest.mark.parametrize("name", BODIES)
def test_each_way_has_a_constant_of_its_own(name: str, rng: np.random.Generator) -> None:
    prepared = prepare(tied(name))
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    view = GraphView(prepared)
    layers = [node for node in view.nodes if node.op_type != "Relu"]
    ways = {(node.inputs[1], channel_axis(view, node, 1)) for node in layers}
    assert len(ways) == len({tensor for tensor, _ in ways})
    assert len(ways) == (1 if name == "the same way twice" else 2)
    shape = (3, *view.shape("x")[1:])  # type: ignore[index]
    x = rng.standard_normal(shape).astype(np.float32)
    (wanted,), (found,) = (run(model, {"x": x}) for model in (tied(name), prepared))
    np.testing.assert_array_equal(found, wanted)
