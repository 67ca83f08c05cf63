"""Weights behind Q/DQ: their codes, their scales, what is stored once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from onnx import helper, numpy_helper

from artefacts.errors import ModelError
from quantization.placement import place
from quantization.write.insert import QuantizedTensor, insert_qdq, unify_ranges
from tests.networks import NETWORKS, Builder
from tests.networks.running import minmax_ranges, random_feeds, run
from tests.unit.quantization.inserted import branches, initializers, quantized


def test_weights_are_a_quarter_and_no_float_copy_is_left() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 64, 8, 8)), 64))
    model = net.build("wide", net.relu(net.conv(x, 128)))
    result = quantized(model)
    assert "weight_0" not in initializers(result)
    assert result.ByteSize() < 0.3 * model.ByteSize()
    kept = quantized(model, weights="float")
    assert kept.ByteSize() > model.ByteSize()


@pytest.mark.parametrize("name", ["resnet_basic", "unet_transposed", "bert"])
def test_float_weights_compute_the_same_as_int8_weights(name: str) -> None:
    model = NETWORKS[name]()
    feeds = random_feeds(model, np.random.default_rng(1))
    stored = run(quantized(model), feeds, optimize=False)
    pairs = run(quantized(model, weights="float"), feeds, optimize=False)
    for key, value in stored.items():
        np.testing.assert_array_equal(value, pairs[key])


def test_scales_follow_the_ranges(rng: np.random.Generator) -> None:
    model = branches()
    placement = place(model)
    ranges = minmax_ranges(model, placement.tensors, random_feeds(model, rng))
    result = insert_qdq(model, placement, ranges)
    values = initializers(result)
    pair = next(n for n in result.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "x")
    assert values[pair.input[1]] == np.float32(ranges["x"].amax / 127)
    weight = initializers(model)["weight_0"]
    amax = np.abs(weight).reshape(32, -1).max(1)
    np.testing.assert_array_equal(values["weight_0_scale"], (amax / 127.0).astype(np.float32))


def test_shared_scales_take_the_largest_range(rng: np.random.Generator) -> None:
    model = branches()
    placement = place(model)
    (group,) = placement.shared
    ranges = minmax_ranges(model, placement.tensors, random_feeds(model, rng))
    narrow = dataclasses.replace(ranges[group[0]], amax=ranges[group[0]].amax / 2)
    ranges = ranges.replace({group[0]: narrow})
    unified = unify_ranges(ranges, placement)
    largest = max(ranges[name].amax for name in group)
    assert {unified[name].amax for name in group} == {largest}
    assert any("shares one scale" in unified[name].why for name in group)
    result = insert_qdq(model, placement, ranges)
    scales = [
        initializers(result)[node.input[1]].item()
        for node in result.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in group
    ]
    assert len(scales) == 2
    assert len(set(scales)) == 1


def test_a_shared_weight_is_stored_once() -> None:
    result = quantized(branches())
    codes = [n for n, v in initializers(result).items() if v.dtype == np.int8 and v.ndim == 4]
    assert len(codes) == 3


def test_a_weight_that_a_float_layer_reads_too_is_kept() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    mean = net.op("ReduceMean", "weight_0", keepdims=0)
    model = net.build("tied", net.op("Mul", x, mean))
    values = initializers(quantized(model))
    assert {"weight_0", "weight_0_int8"} <= set(values)


def test_weights_behind_transpose_and_constant_nodes(rng: np.random.Generator) -> None:
    net = Builder()
    raw = rng.standard_normal((48, 32)).astype(np.float32)
    net.nodes.append(
        helper.make_node("Constant", [], ["raw"], value=numpy_helper.from_array(raw), name="c")
    )
    weight = net.op("Transpose", "raw", perm=[1, 0])
    model = net.build("folded", net.op("MatMul", net.input("x", (16, 32)), weight))
    result = quantized(model)
    assert [n.op_type for n in result.graph.node] == [
        "QuantizeLinear",
        "DequantizeLinear",
        "DequantizeLinear",
        "MatMul",
    ]
    stored = initializers(result)[f"{weight}_int8"]
    scale = np.abs(raw).max(1) / 127
    np.testing.assert_allclose(stored * scale, raw.T, atol=scale.max() / 2 * 1.0001)


def test_overrides_hand_in_their_own_integers(rng: np.random.Generator) -> None:
    model = branches()
    placement = place(model)
    ranges = minmax_ranges(model, placement.tensors, random_feeds(model, rng))
    codes = rng.integers(-127, 128, (32, 32, 3, 3)).astype(np.int8)
    mine = QuantizedTensor(codes=codes, scale=np.full(32, 0.01, np.float32))
    result = insert_qdq(model, placement, ranges, weight_overrides={"weight_0": mine})
    np.testing.assert_array_equal(initializers(result)["weight_0_int8"], codes)
    short = QuantizedTensor(codes=codes, scale=np.full(16, 0.01, np.float32))
    with pytest.raises(
        ModelError, match=r"weight_0 has shape .*scale shape \(16,\), expected .*32"
    ):
        insert_qdq(model, placement, ranges, weight_overrides={"weight_0": short})
    with pytest.raises(ModelError, match=r"nowhere.*is no weight of this placement"):
        insert_qdq(model, placement, ranges, weight_overrides={"nowhere": mine})
    with pytest.raises(ModelError, match=r"from -128, expected int8 in \[-127, 127\]"):
        QuantizedTensor(codes=np.full((2, 2), -128, np.int8), scale=np.float32([1, 1]))
    with pytest.raises(ModelError, match="not finite and positive"):
        QuantizedTensor(codes=codes, scale=np.zeros(32, np.float32))
