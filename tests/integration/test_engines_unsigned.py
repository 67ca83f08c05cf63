"""Unsigned codes for tensors that are never negative: same values, and only where it is so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest

from engines.openvino.cpu_isa import cpu_isa
from engines.openvino.library import core, openvino, settings
from engines.openvino.rewrites.fake_quantize import fuse_qdq
from engines.openvino.rewrites.layer_bias import add_missing_biases
from engines.openvino.rewrites.unsigned_codes import use_unsigned_codes
from quantization.placement import place
from quantization.write.insert import insert_qdq
from tests.networks import Builder
from tests.networks.running import minmax_ranges, random_feeds, run, sqnr_db

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")


def fused(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> tuple[onnx.ModelProto, Any]:
    """The INT8 graph, and OpenVINO's network of it; some values saturate."""
    placement = place(model, profile="cpu", portable=True)
    ranges = minmax_ranges(model, placement.tensors, feeds, factor=0.7)
    int8 = insert_qdq(model, placement, ranges)
    network = core().read_model(int8.SerializeToString())
    fuse_qdq(openvino(), network)
    return int8, network


def computes_the_graph(network: Any, int8: onnx.ModelProto, feeds: Mapping[str, Any]) -> None:
    found = core().compile_model(network, "CPU", settings(1, "f32"))(feeds).values()
    for wanted, values in zip(run(int8, feeds, optimize=False).values(), found, strict=True):
        assert sqnr_db(wanted, values) > 35, "a code may differ where a sum is rounded otherwise"


@pytest.mark.parametrize("activation", ["relu", "relu6", "silu", "none"])
def test_same_values_with_unsigned_codes(activation: str, rng: np.random.Generator) -> None:
    net = Builder()
    act = (lambda x: x) if activation == "none" else getattr(net, activation)
    x = act(net.conv(net.input("x", (1, 16, 12, 12)), 32))
    y = act(net.conv(x, 32))
    model = net.build("net", net.conv(net.op("Add", net.conv(y, 32), x), 16))
    placement = place(model, profile="cpu", portable=True)
    feeds = random_feeds(model, rng)
    ranges = minmax_ranges(model, placement.tensors, feeds, factor=0.7)  # some values saturate
    int8 = insert_qdq(model, placement, ranges)
    networks = [core().read_model(int8.SerializeToString()) for _ in range(2)]
    for network in networks:
        fuse_qdq(openvino(), network)
    count = use_unsigned_codes(openvino(), networks[1])
    assert count == {"relu": 2, "relu6": 2, "silu": 0, "none": 0}[activation]
    signed, unsigned = (
        next(iter(core().compile_model(network, "CPU", settings(1, "f32"))(feeds).values()))
        for network in networks
    )
    assert sqnr_db(signed, unsigned) > 35, "a code may differ where a sum is rounded otherwise"
    reference = next(iter(run(int8, feeds, optimize=False).values()))
    assert sqnr_db(reference, unsigned) > sqnr_db(reference, signed) - 3


@pytest.mark.parametrize("batch", ["N", 2])
def test_a_tensor_that_is_read_in_float_too(batch: int | str, rng: np.random.Generator) -> None:
    """Behind a layer without bias (engines.openvino.rewrites.layer_bias)."""
    net = Builder()
    x = net.relu(net.conv(net.input("x", (batch, 3, 12, 12)), 16))
    y = net.relu(net.op("Conv", x, net.weight((16, 16, 3, 3), 144), kernel_shape=[3, 3]))
    net.channels[y] = 16
    model = net.build("net", net.conv(y, 8, 1), net.op("GlobalMaxPool", y))
    feeds = random_feeds(model, rng)
    int8, network = fused(model, feeds)
    assert use_unsigned_codes(openvino(), network) == 2
    assert add_missing_biases(openvino(), network) == 1
    computes_the_graph(network, int8, feeds)


@pytest.mark.parametrize("pooled", [False, True])
def test_what_is_joined_with_signed_codes_stays_signed(
    pooled: bool, rng: np.random.Generator
) -> None:
    """A depthwise layer of more outputs than inputs reads the Concat: its sums would saturate."""
    net = Builder(int(rng.integers(1 << 30)))
    x = net.conv(net.input("x", (2, 8, 16, 16)), 8, 1)
    positive = net.op("Clip", x, net.constant(np.float32(0)), net.constant(np.float32(6)))
    if pooled:
        positive, x = (net.op("MaxPool", y, kernel_shape=[2, 2]) for y in (positive, x))
    joined = net.op("Concat", net.op("Concat", positive, positive, axis=1), x, axis=1)
    net.channels[joined] = 24
    weight = net.weight((48, 1, 3, 3), 9)
    y = net.op("Conv", joined, weight, group=24, kernel_shape=[3, 3], pads=[1] * 4)
    alone = net.conv(net.relu(net.conv(net.op("MaxPool", joined, kernel_shape=[2, 2]), 8)), 8)
    model = net.build("joined", y, alone)
    feeds = random_feeds(model, rng)
    placement = place(model, profile="cpu")
    int8 = insert_qdq(model, placement, minmax_ranges(model, placement.tensors, feeds))
    network = core().read_model(int8.SerializeToString())
    fuse_qdq(openvino(), network)
    assert use_unsigned_codes(openvino(), network) == 1, "that of the last layer"
    if cpu_isa() == "vnni":
        computes_the_graph(network, int8, feeds)


def widened(net: Builder, x: str, move: str) -> str:
    """Twice the height and width, by copies of what was there: (2, C, 8, 8) → (2, C', 16, 16)."""
    channels = net.channels[x]
    if move == "Resize":
        return net.upsample(x)
    if move == "DepthToSpace":
        found = net.op("DepthToSpace", x, blocksize=2)
    elif move == "Tile":
        found = net.op("Tile", x, net.ints(1, 1, 2, 2))
    else:  # jnp.repeat
        lines = net.op("Reshape", x, net.ints(2, channels, 8, 1, 8, 1))
        wide = net.op("Expand", lines, net.ints(2, channels, 8, 2, 8, 2))
        found = net.op("Reshape", wide, net.ints(2, channels, 16, 16))
    net.channels[found] = channels // 4 if move == "DepthToSpace" else channels
    return found


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("move", ["Resize", "DepthToSpace", "Tile", "Expand"])
def test_what_is_joined_behind_copies(move: str, signed: bool, rng: np.random.Generator) -> None:
    """Of unsigned and signed codes OpenVINO makes coarser ones of its own: 27 dB."""
    net = Builder(int(rng.integers(1 << 30)))
    skip = net.relu(net.conv(net.input("x", (2, 8, 16, 16)), 16))
    deep = net.conv(skip, 32, 2, stride=2)
    wide = widened(net, deep if signed else net.relu(deep), move)
    model = net.build("copies", net.conv(net.concat(wide, skip), 8))
    feeds = random_feeds(model, rng)
    placement = place(model, profile="cpu", portable=True)
    int8 = insert_qdq(model, placement, minmax_ranges(model, placement.tensors, feeds))
    network = core().read_model(int8.SerializeToString())
    fuse_qdq(openvino(), network)
    assert use_unsigned_codes(openvino(), network) == (0 if signed else 2)
    computes_the_graph(network, int8, feeds)


def clamps(network: Any) -> list[tuple[float, float]]:
    found = [
        op.get_attributes() for op in network.get_ordered_ops() if op.get_type_name() == "Clamp"
    ]
    return [(found_one["min"], found_one["max"]) for found_one in found]


def left_of_limits(network: Any) -> int:
    kinds = ("Relu", "Maximum", "Minimum")
    return sum(op.get_type_name() in kinds for op in network.get_ordered_ops())


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("kind", ["conv", "depthwise", "no bias", "matmul"])
def test_layers_that_give_codes_out(kind: str, batch: int | str, rng: np.random.Generator) -> None:
    """ReLU6 and the range's end are one Clamp to 127, and the layer is divided by the scale."""
    net = Builder()
    x = net.input("x", (batch, 16) if kind == "matmul" else (batch, 16, 9, 9))
    if kind == "matmul":
        y = net.op("Add", net.op("MatMul", x, net.weight((16, 24), 16)), net.weight((24,), 4))
        out = net.op("MatMul", net.relu6(y), net.weight((24, 8), 24))
    else:
        if kind == "no bias":
            y = net.op("Conv", x, net.weight((16, 16, 3, 3), 144), kernel_shape=[3, 3])
            net.channels[y] = 16
        else:
            y = net.conv(x, 16, groups=16 if kind == "depthwise" else 1)
        out = net.conv(net.relu6(y), 8)
    model = net.build("net", out)
    feeds = random_feeds(model, rng)
    int8, network = fused(model, feeds)
    assert use_unsigned_codes(openvino(), network) == 1
    assert left_of_limits(network) == 0
    ((low, high),) = clamps(network)
    assert low == 0
    assert high == pytest.approx(127)
    computes_the_graph(network, int8, feeds)


def test_layers_that_keep_their_scale(rng: np.random.Generator) -> None:
    """A weight of two layers, and a result that a float operator reads, too."""
    net = Builder()
    x = net.input("x", (2, 16, 9, 9))
    weight = net.weight((16, 16, 3, 3), 144)
    shared = [net.op("Conv", x, weight, kernel_shape=[3, 3]) for _ in range(2)]
    net.channels.update(dict.fromkeys(shared, 16))
    read_twice = net.conv(x, 16)
    heads = [net.conv(net.relu(y), 8) for y in (*shared, read_twice)]
    model = net.build("net", *heads, net.op("GlobalMaxPool", read_twice))
    feeds = random_feeds(model, rng)
    int8, network = fused(model, feeds)
    assert use_unsigned_codes(openvino(), network) == 3
    tops = [high for _, high in clamps(network)]
    assert all(abs(top - 127) > 1e-3 for top in tops), "no layer is divided"
    computes_the_graph(network, int8, feeds)


def test_limits_of_both_signs(rng: np.random.Generator) -> None:
    """A ReLU6 whose middle was moved to 0 stays signed, and its layer gives codes out, too."""
    net = Builder()
    y = net.conv(net.input("x", (2, 16, 9, 9)), 16)
    limited = net.op("Clip", y, net.constant(np.float32(-3)), net.constant(np.float32(3)))
    net.channels[limited] = 16
    model = net.build("net", net.conv(limited, 8))
    feeds = random_feeds(model, rng)
    int8, network = fused(model, feeds)
    assert use_unsigned_codes(openvino(), network) == 0
    assert left_of_limits(network) == 0
    assert [end for pair in clamps(network) for end in pair] == pytest.approx([-128, 127], abs=1.1)
    computes_the_graph(network, int8, feeds)


@pytest.mark.parametrize("low", [0.0, 0.25, -0.25], ids=["zero", "above", "below"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("move", ["Squeeze", "Reshape", "Transpose", "none"])
def test_limits_behind_a_layer_whose_result_is_moved(
    move: str, biased: bool, low: float, rng: np.random.Generator
) -> None:
    """Keras' convolutions of sequences; OpenVINO computes a Clamp there wrong (free batch)."""
    net = Builder()
    x = net.input("x", ("N", 16, 1, "L"))
    kernel = {"kernel_shape": [1, 3], "pads": [0, 1, 0, 1]}
    y = net.op("Conv", x, net.weight((24, 16, 1, 3), 48), **kernel)
    if move == "Reshape":
        y = net.op("Reshape", y, net.ints(0, 24, -1))
    elif move != "none":
        y = net.op("Squeeze", y, net.ints(2))
    if biased:
        y = net.op("Add", y, net.weight((1, 24, 1, 1) if move == "none" else (1, 24, 1), 4))
    y = net.op("Transpose", y, perm=[0, 2, 1]) if move == "Transpose" else y
    y = net.op("Clip", y, net.constant(np.float32(low)), net.constant(np.float32(1.5)))
    y = net.op("Transpose", y, perm=[0, 2, 1]) if move == "Transpose" else y
    y = net.op("Unsqueeze", y, net.ints(2)) if move != "none" else y
    model = net.build("sequence", net.op("Conv", y, net.weight((8, 24, 1, 3), 72), **kernel))
    feeds = {"x": rng.standard_normal((2, 16, 1, 12)).astype(np.float32)}
    int8, network = fused(model, feeds)
    use_unsigned_codes(openvino(), network)
    computes_the_graph(network, int8, feeds)
