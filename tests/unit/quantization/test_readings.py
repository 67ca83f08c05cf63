"""Ranges in front of moves are chosen for what computes behind them."""

from __future__ import annotations

import dataclasses
import importlib
from functools import partial

import numpy as np
import onnx
import pytest

from graphs.qdq import copies
from graphs.view import GraphView
from quantization.improve.channels.judge import Judge
from quantization.improve.improve import improve_layers
from quantization.improve.methods import NOTHING
from quantization.improve.walk.float_and_int8 import FloatAndInt8
from quantization.improve.walk.readings import moves_alone, readings
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


def chosen_amax(model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> float:
    """Of the input, the one tensor with a range."""
    placement, ranges = calibrated(model, feeds, profile="cpu")
    assert [edge.observed for edge in placement.activations] == ["x"]
    improved = improve_layers(model, placement, ranges, feeds, methods=RANGES)
    return improved.ranges["x"].amax


@pytest.mark.parametrize("pools", [1, 2])
def test_the_range_is_that_of_the_pooled(pools: int, rng: np.random.Generator) -> None:
    whole = read_by_a_layer(pools, SIZE)
    alone = read_by_a_layer(0, SIZE >> pools)
    feeds = [{"x": of_a_leaky_relu(rng)} for _ in range(8)]
    pooled = readings(GraphView(whole), GraphView(whole).nodes[0], 0, copies)[0].moved
    behind = [{"x": pooled(f["x"])} for f in feeds]
    assert chosen_amax(whole, feeds) == chosen_amax(alone, behind)


@pytest.mark.parametrize("moved", ["flat", "turned"])
def test_the_range_is_that_of_the_layer_behind_moves(moved: str, rng: np.random.Generator) -> None:
    def network(of: str) -> onnx.ModelProto:
        net = Builder(6)
        shape = {"alone": (1, 384), "flat": (1, 24, 4, 4), "turned": (1, 4, 4, 24)}[of]
        x = net.input("x", shape)
        x = net.op("Transpose", x, perm=[0, 3, 1, 2]) if of == "turned" else x
        x = x if of == "alone" else net.op("Flatten", x)
        return net.build(of, net.gemm(x, 384, 16))

    maps = [of_a_leaky_relu(rng)[:, :, :4, :4] for _ in range(8)]
    as_fed = {"alone": lambda x: x.reshape(1, 384), "flat": lambda x: x}
    as_fed["turned"] = lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    alone, behind = (
        chosen_amax(network(name), [{"x": as_fed[name](x)} for x in maps])
        for name in ("alone", moved)
    )
    assert behind == alone


def test_what_else_a_move_takes_is_not_known_beforehand(rng: np.random.Generator) -> None:
    net = Builder(7)
    x, place = net.input("x", (8, 32)), net.input("place", (3,), onnx.TensorProto.INT64)
    model = net.build("picked", net.gemm(net.op("Gather", x, place, axis=0), 32, 16))
    view = GraphView(model)
    (reading,) = readings(view, view.nodes[0], 0, partial(moves_alone, view))
    assert reading.node.op_type == "Gather"
    (reading,) = readings(view, view.nodes[0], 0, copies)
    assert reading.node.op_type == "Gemm"
    feeds = [
        {"x": rng.standard_normal((8, 32)).astype(np.float32), "place": rng.integers(0, 8, 3)}
        for _ in range(4)
    ]
    placement, ranges = calibrated(model, feeds, profile="cpu")
    improved = improve_layers(model, placement, ranges, feeds, methods=RANGES)
    assert 0 < improved.ranges["x"].amax <= ranges["x"].amax


def test_a_range_that_no_layer_judges_is_that_of_calibration(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Slices of a picture joined again: the error of the picture alone is a bad reason to cut."""
    choice = importlib.import_module("quantization.improve.range_choice")
    monkeypatch.setattr(choice, "_WORTH_A_CHANGE", 0.0)
    net = Builder(8)
    x = net.input("x", (1, 8, SIZE, SIZE))
    halves = [
        net.op("Slice", x, net.ints(start), net.ints(SIZE), net.ints(2), net.ints(2))
        for start in (0, 1)
    ]
    joined = net.op("Concat", *halves, axis=1)
    net.channels[joined] = 16
    model = net.build("sliced", net.conv(joined, 16))
    picture = rng.standard_normal((6, 1, 8, SIZE, SIZE)).astype(np.float32)
    feeds = [{"x": values} for values in picture]
    placement, ranges = calibrated(model, feeds, profile="cpu")
    assert {edge.observed for edge in placement.activations} == {"x"}
    improved = improve_layers(model, placement, ranges, feeds, methods=RANGES)
    assert improved.ranges["x"].amax == ranges["x"].amax


def test_every_reader_behind_pools_counts(rng: np.random.Generator) -> None:
    net = Builder(5)
    x = net.max_pool(net.input("x", (1, 24, SIZE, SIZE)), 3, stride=2)
    net.channels[x] = 24
    beside = net.op("Sigmoid", net.max_pool(x, 3, stride=2))
    model = net.build("fork", net.conv(x, 16), beside)
    view = GraphView(model)
    pools = [node for node in view.nodes if node.op_type == "MaxPool"]
    found = readings(view, pools[0], 0, copies)
    assert sorted(reading.node.op_type for reading in found) == ["Conv", "Sigmoid"]
    values = of_a_leaky_relu(rng)
    exact = load_onnxruntime(model)({"x": values})
    behind = {reading.node.op_type: reading.moved(values) for reading in found}
    sigmoid = 1 / (1 + np.exp(-behind["Sigmoid"].astype(np.float64)))
    np.testing.assert_allclose(exact[beside], sigmoid, rtol=1e-5)
    # A pool that the network ends in is a reader itself.
    net = Builder(5)
    last = net.build("last", net.max_pool(net.input("x", (1, 24, SIZE, SIZE)), 3))
    node = GraphView(last).nodes[0]
    (reading,) = readings(GraphView(last), node, 0, copies)
    assert reading.node.op_type == "MaxPool"
    assert reading.moved(values) is values


def test_scales_are_judged_by_what_is_pooled(rng: np.random.Generator) -> None:
    whole, alone = read_by_a_layer(1, SIZE), read_by_a_layer(0, SIZE >> 1)
    feeds = [{"x": of_a_leaky_relu(rng)} for _ in range(4)]
    pooled = readings(GraphView(whole), GraphView(whole).nodes[0], 0, copies)[0].moved
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
