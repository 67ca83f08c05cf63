"""A range in front of a MaxPool is chosen for what the MaxPool hands on."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from graphs.view import GraphView
from quantization.improve.channels.judge import Judge
from quantization.improve.improve import improve_layers
from quantization.improve.methods import NOTHING
from quantization.improve.walk.behind_pools import readings
from quantization.improve.walk.float_and_int8 import FloatAndInt8
from quantization.measure.execution import load_onnxruntime
from tests.accuracy_models import calibrated
from tests.networks import Builder

RANGES = dataclasses.replace(NOTHING, ranges=True)
SIZE = 48


def read_by_a_layer(pools: int, size: int) -> onnx.ModelProto:
    """A layer behind so many pools, of an input that may be scaled: no other reads it."""
    net = Builder(5)
    x = net.input("x", (1, 24, size, size))
    for _ in range(pools):
        x = net.max_pool(x, 3, stride=2)
    net.channels[x] = 24
    return net.build("pooled", net.conv(x, 16))


def of_a_leaky_relu(rng: np.random.Generator) -> np.ndarray:
    """Mostly small: most of it no pool hands on."""
    values = rng.standard_normal((1, 24, SIZE, SIZE)).astype(np.float32) ** 3
    return np.where(values < 0, values / 16, values)


@pytest.mark.parametrize("pools", [1, 2])
def test_the_range_is_that_of_the_pooled(pools: int, rng: np.random.Generator) -> None:
    whole = read_by_a_layer(pools, SIZE)
    alone = read_by_a_layer(0, SIZE >> pools)
    feeds = [{"x": of_a_leaky_relu(rng)} for _ in range(8)]
    pooled = readings(GraphView(whole), GraphView(whole).nodes[0], 0)[0].pooled
    chosen = []
    for model, given in ((whole, feeds), (alone, [{"x": pooled(f["x"])} for f in feeds])):
        placement, ranges = calibrated(model, given, profile="cpu")
        assert [edge.observed for edge in placement.activations] == ["x"]
        improved = improve_layers(model, placement, ranges, given, methods=RANGES)
        chosen.append(improved.ranges["x"].amax)
    assert chosen[0] == chosen[1]


def test_every_reader_behind_pools_counts(rng: np.random.Generator) -> None:
    net = Builder(5)
    x = net.max_pool(net.input("x", (1, 24, SIZE, SIZE)), 3, stride=2)
    net.channels[x] = 24
    beside = net.op("Sigmoid", net.max_pool(x, 3, stride=2))
    model = net.build("fork", net.conv(x, 16), beside)
    view = GraphView(model)
    pools = [node for node in view.nodes if node.op_type == "MaxPool"]
    found = readings(view, pools[0], 0)
    assert sorted(reading.node.op_type for reading in found) == ["Conv", "Sigmoid"]
    values = of_a_leaky_relu(rng)
    exact = load_onnxruntime(model)({"x": values})
    behind = {reading.node.op_type: reading.pooled(values) for reading in found}
    sigmoid = 1 / (1 + np.exp(-behind["Sigmoid"].astype(np.float64)))
    np.testing.assert_allclose(exact[beside], sigmoid, rtol=1e-5)
    # A pool that the network ends in is a reader itself.
    net = Builder(5)
    last = net.build("last", net.max_pool(net.input("x", (1, 24, SIZE, SIZE)), 3))
    node = GraphView(last).nodes[0]
    (reading,) = readings(GraphView(last), node, 0)
    assert reading.node.op_type == "MaxPool"
    assert reading.pooled(values) is values


def test_scales_are_judged_by_what_is_pooled(rng: np.random.Generator) -> None:
    whole, alone = read_by_a_layer(1, SIZE), read_by_a_layer(0, SIZE >> 1)
    feeds = [{"x": of_a_leaky_relu(rng)} for _ in range(4)]
    pooled = readings(GraphView(whole), GraphView(whole).nodes[0], 0)[0].pooled
    amax = np.max([np.abs(f["x"]).max(axis=(0, 2, 3)) for f in feeds], axis=0).astype(np.float64)
    sets = np.stack([np.ones(24), *np.exp(0.5 * rng.standard_normal((3, 24)))])
    found = []
    for model, given in ((whole, feeds), (alone, [{"x": pooled(f["x"])} for f in feeds])):
        placement, _ = calibrated(model, given, profile="cpu")
        judge = Judge(GraphView(model), placement, {"x": sets}, {"x": amax}, seed=0)
        FloatAndInt8(view=GraphView(model), samples=given, correct=False).walk(judge.look)
        found.append(judge.errors["x"])
    assert (found[0] > 0).all()
    np.testing.assert_array_equal(*found)
