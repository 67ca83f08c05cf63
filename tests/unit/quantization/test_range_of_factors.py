"""What two activations that are multiplied keep, and what a layer with weights may choose."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx

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


def test_factors_of_a_product_keep_the_range_of_calibration(rng: np.random.Generator) -> None:
    model = attention()
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
