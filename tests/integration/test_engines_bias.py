"""Layers without bias, free shapes, results read more than once: the engine computes the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import engines
from engines.openvino.library import openvino
from engines.openvino.rewrites.layer_bias import add_missing_biases
from quantization.placement import place
from quantization.write.insert import insert_qdq
from tests.integration.cpu_engines import answers
from tests.networks import Builder
from tests.networks.running import minmax_ranges, random_feeds, run, sqnr_db

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

Dim = int | str


def chain(batch: Dim) -> onnx.ModelProto:
    """A convolution that is an output and an input."""
    net = Builder(1)
    x = net.relu(net.input("x", (batch, 16, 8, 8)))
    first = net.conv(x, 8, 1, bias=False)
    return net.build("chain", first, net.conv(first, 16, 3, bias=False))


def residual(batch: Dim) -> onnx.ModelProto:
    """Depthwise layers and a sum that goes on in float."""
    net = Builder(2)
    x = net.input("x", (batch, 16, 8, 8))
    for _ in range(2):
        y = net.op("Add", net.conv(x, 16, groups=16, bias=False), x)
        net.channels[y] = 16
        x = y
    return net.build("residual", x, net.op("Sigmoid", x))


def attention(batch: Dim) -> onnx.ModelProto:
    """Products of two activations, read by another product and by the output."""
    net = Builder(3)
    x = net.input("x", (batch, 10, 16))

    def attend(values: str) -> str:
        scores = net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1]))
        return net.op("MatMul", net.op("Softmax", scores, axis=-1), values)

    first = attend(x)
    second = attend(first)
    return net.build("attention", first, net.op("MatMul", second, net.weight((16, 8), 16)), second)


def transposed(batch: Dim) -> onnx.ModelProto:
    """A U-Net's step up, which its decoder reads twice."""
    net = Builder(4)
    x = net.relu(net.conv(net.input("x", (batch, 16, 8, 8)), 12))
    up = net.op("ConvTranspose", x, net.weight((12, 8, 2, 2), 12), strides=[2, 2])
    net.channels[up] = 8
    gate = net.op("Sigmoid", net.conv(up, 8, 1))
    return net.build("transposed", net.op("Mul", up, gate))


def zeros(batch: Dim) -> onnx.ModelProto:
    """A stem that was not trained: its bias is there, and nothing; its skip is channels-last."""
    net = Builder(6)
    weight = net.weight((24, 3, 1, 1), 3)
    stem = net.op("Conv", net.input("x", (batch, 3, 8, 8)), weight, net.constant(np.zeros(24, "f")))
    net.channels[stem] = 24
    skip, block = (net.op("Transpose", y, perm=[0, 2, 3, 1]) for y in (stem, net.conv(stem, 24)))
    wide = net.op("Tanh", net.linear(block, 24, 96))
    both = net.op("Add", skip, net.linear(wide, 96, 24))
    last = net.op("Transpose", both, perm=[0, 3, 1, 2])
    net.channels[last] = 24
    return net.build("zeros", net.conv(last, 8))


def folded(batch: Dim) -> onnx.ModelProto:
    """Attention among patches, folded into the batch as MobileViT and Swin have it, sizes lost."""
    net = Builder(5)
    x = net.input("x", (batch, 4, 12, 32))
    rows = net.op("Mul", net.op("Gather", net.op("Shape", x), net.ints(0), axis=0), net.ints(4))
    x = net.op("Reshape", x, net.op("Concat", rows, net.ints(12), net.ints(-1), axis=0))

    def heads(order: list[int]) -> str:
        parted = net.op("Reshape", net.linear(x, 32, 32), net.ints(0, 0, -1, 8))
        return net.op("Transpose", parted, perm=order)

    scores = net.op("MatMul", heads([0, 2, 1, 3]), heads([0, 2, 3, 1]))
    scores = net.op("Softmax", net.op("Div", scores, net.scalar(3.0)), axis=-1)
    return net.build("folded", net.op("MatMul", scores, heads([0, 2, 1, 3])))


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("network", [chain, residual, attention, transposed, zeros, folded])
def test_results_that_are_read_twice(
    network: Callable[[Dim], onnx.ModelProto], batch: Dim, tmp_path: Path, rng: np.random.Generator
) -> None:
    model = network(batch)
    placement = place(model, profile="cpu", portable=engines.cpu_isa() == "portable")
    feeds = random_feeds(model, rng, dynamic=2)
    int8 = insert_qdq(model, placement, minmax_ranges(model, placement.tensors, feeds))
    found = answers(tmp_path, int8, feeds)
    wanted = run(int8, feeds, optimize=False)
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert sqnr_db(values, found[name]) > 30


def test_a_product_of_unknown_rank() -> None:
    module = openvino()
    ops = module.opset13
    x = ops.parameter(module.PartialShape.dynamic(), np.float32, name="x")
    product = ops.matmul(x, ops.constant(np.ones((4, 4), np.float32)), False, False)
    assert add_missing_biases(module, module.Model([product], [x])) == 1


@pytest.mark.parametrize("between", ["nothing", "limits", "Relu", "LeakyRelu", "Tanh"])
@pytest.mark.parametrize("shape", [(8, 64), (8, 5, 64), ("N", 64)], ids=str)
def test_products_without_bias_in_a_row(
    shape: tuple[Dim, ...], between: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Of fixed shapes and two axes they become one kernel, which needs a bias to be right."""
    net = Builder()
    y = net.input("x", shape)
    for inputs, outputs in ((64, 128), (128, 64), (64, 32)):
        y = net.op("MatMul", y, net.weight((inputs, outputs), inputs))
        if between == "limits":
            y = net.op("Clip", y, net.constant(np.float32(-1)), net.constant(np.float32(1)))
        elif between != "nothing":
            y = net.op(between, y)
    model = net.build("products", y)
    placement = place(model, profile="cpu", portable=True)
    feeds = {"x": rng.standard_normal([d if isinstance(d, int) else 3 for d in shape])}
    feeds = {"x": feeds["x"].astype(np.float32)}
    ranges = minmax_ranges(model, placement.tensors, feeds, factor=0.7)
    int8 = insert_qdq(model, placement, ranges)
    reference = run(int8, feeds, optimize=False)
    found = answers(tmp_path, int8, feeds)
    for name, wanted in reference.items():
        assert sqnr_db(wanted, found[name]) > 35
