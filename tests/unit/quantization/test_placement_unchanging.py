"""A layer whose data no sample changes stays in float."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from quantization.placement import Profile, place
from tests.networks import Builder


def unrolled_cell(start: str) -> onnx.ModelProto:
    """One step of a recurrent cell, its state zeros of the batch's size, or the input."""
    net = Builder()
    x = net.input("x", ("N", 64))
    state = x
    if start == "zeros":
        size = net.op("Slice", net.op("Shape", x), net.ints(0), net.ints(1))
        shape = net.op("Concat", size, net.ints(64), axis=0)
        state = net.op("ConstantOfShape", shape)
    gates = net.op("Add", net.gemm(x, 64, 64), net.gemm(state, 64, 64))
    return net.build("cell", net.gemm(net.op("Tanh", gates), 64, 64))


@pytest.mark.parametrize("profile", ["tensorrt", "cpu"])
def test_zeros_of_the_batch_size_are_not_quantized(profile: Profile) -> None:
    placement = place(unrolled_cell("zeros"), profile=profile)
    kept = {layer.node: layer for layer in placement.floating}
    assert kept["n_Gemm_1"].rule == "unchanging_data"
    assert "the same for every sample" in kept["n_Gemm_1"].why
    assert "n_Gemm_0" in placement.int8_nodes


@pytest.mark.parametrize("profile", ["tensorrt", "cpu"])
def test_a_state_of_the_input_is(profile: Profile) -> None:
    placement = place(unrolled_cell("input"), profile=profile)
    assert {"n_Gemm_0", "n_Gemm_1"} <= set(placement.int8_nodes)


def test_what_a_body_makes_may_change() -> None:
    """An If reads tensors that are none of its inputs."""
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N,64] x) => (float[N,64] y) {
        s = If (c) <then_branch = t () => (float[N,64] a) { a = Tanh (x) },
                    else_branch = e () => (float[N,64] b) { b = Neg (x) }>
        y = MatMul (s, w) }"""
    )
    rng = np.random.default_rng(0)
    model.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.array(True), "c"),
            onnx.numpy_helper.from_array(rng.normal(size=(64, 64)).astype(np.float32), "w"),
        ]
    )
    assert len(place(model, profile="cpu").int8_nodes) == 1
