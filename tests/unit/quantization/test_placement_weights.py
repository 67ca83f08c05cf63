"""Which axis of a weight has a scale of its own."""

from __future__ import annotations

import pytest

from quantization.placement import Placement, place
from tests.networks import Builder


def axes_of(placement: Placement) -> dict[str, int | None]:
    return {weight.node: weight.axis for weight in placement.weights}


@pytest.mark.parametrize(("groups", "axis"), [(1, 1), (4, None)])
def test_transposed_convolution_weights(groups: int, axis: int | None) -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 64, 8, 8)), 64))
    x = net.relu(net.conv_transpose(x, 64, groups=groups))
    model = net.build("up", net.relu(net.conv(x, 64)))
    assert axes_of(place(model, profile="dla"))["n_ConvTranspose_0"] == axis
    promised = "n_ConvTranspose_0" in place(model, profile="cpu").int8_nodes
    assert promised == (groups == 1)


@pytest.mark.parametrize(
    ("attributes", "shape", "axis"),
    [
        ({"transB": 1}, (48, 32), 0),
        ({}, (32, 48), 1),
    ],
)
def test_gemm_weight_axis(attributes: dict[str, int], shape: tuple[int, int], axis: int) -> None:
    net = Builder()
    weight = net.weight(shape, 32)
    y = net.op("Gemm", net.input("x", (16, 32)), weight, net.bias(48), **attributes)
    assert axes_of(place(net.build("gemm", y))) == {"n_Gemm_0": axis}


def test_matmul_weight_axes() -> None:
    net = Builder()
    x = net.input("x", (4, 32, 32))
    right = net.op("MatMul", x, net.weight((32, 32), 32))
    left = net.op("MatMul", net.weight((32, 32), 32), right)
    stack = net.op("MatMul", left, net.weight((4, 32, 32), 32))
    placement = place(net.build("products", stack))
    assert axes_of(placement) == {"n_MatMul_0": 1, "n_MatMul_1": 0, "n_MatMul_2": None}
