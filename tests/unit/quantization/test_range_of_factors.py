"""What two activations that are multiplied keep, and what a layer with weights may choose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from quantization.improve.improve import improve_layers
from quantization.improve.methods import NOTHING
from tests.accuracy_models import calibrated, samples_of
from tests.networks import Builder

RANGES = dataclasses.replace(NOTHING, ranges=True)


def attention() -> onnx.ModelProto:
    """Softmax(q k) v of three products, and a product behind it."""
    net = Builder(3)
    x = net.input("x", (1, 24, 32))
    query, key, value = (net.op("MatMul", x, net.weight((32, 32), 32)) for _ in range(3))
    scores = net.op("MatMul", query, net.op("Transpose", key, perm=[0, 2, 1]))
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), value)
    return net.build("attention", net.op("MatMul", mixed, net.weight((32, 16), 32)))


def packed_attention() -> onnx.ModelProto:
    """The same of one product, whose key is moved behind its Q and DQ."""
    net = Builder(3)
    x = net.input("x", (1, 24, 32))
    packed = net.op("MatMul", x, net.weight((32, 96), 32))
    split = net.op("Reshape", packed, net.ints(0, 24, 3, 2, 16))
    heads = net.op("Transpose", split, perm=[2, 0, 3, 1, 4])
    parts = net.op("Split", heads, net.ints(1, 1, 1), outputs=3, axis=0)
    names = [parts, f"{parts}.1", f"{parts}.2"]
    query, key, value = (net.op("Squeeze", name, net.ints(0)) for name in names)
    scores = net.op("MatMul", query, net.op("Transpose", key, perm=[0, 1, 3, 2]))
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), value)
    joined = net.op("Reshape", net.op("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(0, 24, 32))
    return net.build("packed", net.op("MatMul", joined, net.weight((32, 16), 32)))


@pytest.mark.parametrize("build", [attention, packed_attention])
def test_factors_of_a_product_keep_the_range_of_calibration(
    build: Callable[[], onnx.ModelProto], rng: np.random.Generator
) -> None:
    model = build()
    feeds = samples_of(model, rng, 6)
    placement, ranges = calibrated(model, feeds)
    wide = {n: dataclasses.replace(r, amax=4 * r.amax) for n, r in ranges.tensors.items()}
    ranges = ranges.replace(wide)  # four times what there is: any choice is a better one
    improved = improve_layers(model, placement, ranges, feeds, methods=RANGES)
    weighted = {weight.node for weight in placement.weights}
    factors = {e.observed for e in placement.activations if e.node not in weighted}
    assert len(factors) == 4  # of both products
    for name in factors:
        assert improved.ranges[name].amax == ranges[name].amax
    assert improved.ranges["x"].amax < ranges["x"].amax
