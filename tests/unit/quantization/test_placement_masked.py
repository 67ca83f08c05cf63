"""Masks are no numbers: what throws them away is quantized behind, what reads them is left."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphs.view import GraphView
from quantization.arithmetic import symmetric_scale
from quantization.placement import place
from quantization.placement.result import Placement, Profile
from quantization.placement.walk import may_be_unsigned
from tests.networks import Builder

LOWEST = float(np.finfo(np.float32).min)


def masked(how: str, value: float, *, pooled: bool = True) -> onnx.ModelProto:
    """Values of a layer, some of them masked, and the layer behind them."""
    net = Builder()
    x = net.relu(net.conv(net.input("x", ("N", 16, 8, 8)), 32))
    mask = net.constant(net.rng.random((1, 1, 8, 8)) < 0.5)
    if how == "Where":
        x = net.op("Where", mask, net.scalar(value), x)
    elif how == "Pad":
        x = net.op("Pad", x, net.ints(0, 0, 3, 3, 0, 0, 3, 3), net.scalar(value))
    elif how == "Concat":
        x = net.op("Concat", x, net.constant(np.full((1, 32, 1, 8), value, np.float32)), axis=2)
    elif how == "Add":  # (1 - mask) * value, as transformers mask
        asked = net.op("Cast", net.input("mask", ("N", 1, 8, 8), onnx.TensorProto.INT64), to=1)
        left = net.op("Sub", net.scalar(1.0), asked)
        x = net.op("Add", x, net.op("Mul", left, net.scalar(value)))
    x = net.op("Transpose", x, perm=[0, 1, 3, 2])
    if pooled:
        x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    net.channels[x] = 32
    return net.build("masked", net.relu(net.conv(x, 32)))


def observed(placement: Placement) -> set[str]:
    """Tensors that the last layer takes its range from."""
    return {edge.observed for edge in placement.activations if edge.observed != "x"}


MASKS = [
    (how, value)
    for how in ("Where", "Pad", "Concat", "Add")
    for value in (-np.inf, LOWEST, -1e9, -1e4)
    if how != "Add" or np.isfinite(value)  # 0 * -inf is NaN: nobody masks so
]


@pytest.mark.parametrize("profile", ["tensorrt", "cpu"])
@pytest.mark.parametrize(("how", "value"), MASKS)
def test_a_maximum_of_masked_values_has_the_range(how: str, value: float, profile: Profile) -> None:
    assert observed(place(masked(how, value), profile=profile)) == {"MaxPool_0"}


@pytest.mark.parametrize("profile", ["tensorrt", "cpu"])
@pytest.mark.parametrize(("how", "value"), [("Where", 0.0), ("Concat", 6.0), ("none", 0.0)])
def test_other_maxima_take_the_range_of_what_they_read(
    how: str, value: float, profile: Profile
) -> None:
    assert "MaxPool_0" not in observed(place(masked(how, value), profile=profile))


@pytest.mark.parametrize("profile", ["tensorrt", "cpu"])
def test_what_reads_a_mask_is_left_in_float_once_that_is_known(profile: Profile) -> None:
    model = masked("Where", LOWEST, pooled=False)
    first = place(model, profile=profile)
    (source,) = observed(first)
    ordinary = place(model, profile=profile, amax={"x": 1.0, source: 9.0})
    assert "n_Conv_1" in ordinary.int8_nodes
    later = place(model, profile=profile, amax={"x": 1.0, source: -LOWEST})
    (left,) = [layer for layer in later.floating if layer.rule == "masked_values"]
    assert left.node == "n_Conv_1"
    assert "reaches 3.4e+38" in left.why


def test_a_product_that_sums_nothing_is_left_in_float_on_the_cpu() -> None:
    net = Builder()
    x = net.linear(net.input("x", ("N", 8, 16)), 16, 16)
    row, column = (net.op("ReduceMax", x, axes=[axis], keepdims=1) for axis in (1, 2))
    spread = net.op("MatMul", column, row)
    placement = place(net.build("spread", net.linear(spread, 16, 4)), profile="cpu")
    (left,) = placement.floating
    assert (left.node, left.rule) == ("n_MatMul_1", "outer_product")


def test_a_join_with_negative_constants_is_signed() -> None:
    net = Builder()
    x = net.relu(net.input("x", ("N", 4, 8, 8)))
    joined = [
        net.op("Concat", x, net.constant(np.full((1, 4, 8, 8), value, np.float32)), axis=1)
        for value in (-0.5, 0.5)
    ]
    view = GraphView(net.build("joined", *joined))
    assert [may_be_unsigned(view, name) for name in joined] == [False, True]


def test_no_code_of_a_scale_overflows() -> None:
    largest = np.finfo(np.float32).max
    scale = symmetric_scale(largest)
    assert np.isfinite(np.float32(127) * scale)
    assert scale == pytest.approx(largest / 127, rel=1e-6)


@pytest.mark.parametrize(("how", "value"), MASKS)
def test_a_calibration_cache_has_no_scale_for_a_mask(how: str, value: float) -> None:
    """One scale for a mask and the values beside it would leave nothing of those."""
    placement = place(masked(how, value), profile="dla")
    assert {"MaxPool_0", "Relu_0", "Conv_1", "Relu_1"} <= set(placement.tensors)
    assert not {"Transpose_0", f"{how}_0", "Mul_0"} & set(placement.tensors)
    assert not any("MaxPool_0" in group for group in placement.shared)


def test_what_limits_is_no_mask() -> None:
    net = Builder()
    x = net.op("Clip", net.conv(net.input("x", ("N", 16, 8, 8)), 32), *map(net.scalar, (-6e4, 6e4)))
    placement = place(net.build("limited", net.max_pool(x, 3)), profile="dla")
    assert {"Clip_0", "MaxPool_0"} <= set(placement.tensors)
