"""Chance in a graph: what scales that differ by a rounding make of its outputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from pipeline.runtime_gap import Gap, GapMeter, allow_chance
from quantization.measure.execution import load_int8, load_onnxruntime
from quantization.measure.jitter import jitter_scales
from quantization.write.insert import insert_qdq
from tests.accuracy_models import calibrated, samples_of
from tests.networks import Builder


def waves(gain: float) -> onnx.ModelProto:
    """Products between sines: with a large gain the smallest difference grows."""
    net = Builder(5)
    x = net.input("x", (1, 24, 64))
    for _ in range(5):
        h = net.op("MatMul", x, net.weight((64, 64), 64))
        x = net.op("Sin", net.op("Mul", h, net.scalar(gain)))
    return net.build("waves", net.op("MatMul", x, net.weight((64, 64), 64)))


def int8_of(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    placement, ranges = calibrated(model, samples_of(model, rng, 8))
    return insert_qdq(model, placement, ranges)


def gap_between(
    model: onnx.ModelProto, written: onnx.ModelProto, other: onnx.ModelProto, feeds: list[dict]
) -> Gap:
    meter = GapMeter(batch=1)
    plain, graph, engine = load_onnxruntime(model), load_int8(written), load_int8(other)
    for feed in feeds:
        meter.add(plain(feed), graph(feed), engine(feed), list(graph(feed)))
    (gap,) = meter.gaps()
    return gap


def halved(int8: onnx.ModelProto) -> onnx.ModelProto:
    """A kernel that loses half of what its last layer sums."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(int8)
    pair = [node for node in wrong.graph.node if node.op_type == "DequantizeLinear"][-1]
    for tensor in wrong.graph.initializer:
        if tensor.name == pair.input[1]:
            half = numpy_helper.to_array(tensor) / 2
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    return wrong


def test_scales_alone_change_and_by_a_millionth(rng: np.random.Generator) -> None:
    int8 = int8_of(waves(1.0), rng)
    moved = jitter_scales(int8)
    assert moved.graph.node == int8.graph.node
    changed = 0
    for old, new in zip(int8.graph.initializer, moved.graph.initializer, strict=True):
        was, now = numpy_helper.to_array(old), numpy_helper.to_array(new)
        np.testing.assert_allclose(now, was, rtol=1e-5)
        changed += bool((was != now).any())
        assert old == new or old.data_type == TensorProto.FLOAT
    assert changed >= 5
    assert jitter_scales(int8) == moved


def test_chance_explains_what_it_does_itself(rng: np.random.Generator) -> None:
    """A network of large gains: another order of sums gives another answer, and is no fault."""
    model = waves(60.0)
    int8, feeds = int8_of(model, rng), samples_of(model, rng, 24)
    gap = gap_between(model, int8, jitter_scales(int8, seed=1), feeds)
    assert not gap.explained
    chance = gap_between(model, int8, jitter_scales(int8, seed=2), feeds)
    (allowed,) = allow_chance([gap], [chance])
    assert allowed.explained
    assert allowed.limit_db == pytest.approx(chance.sqnr_db - 3)


def test_chance_excuses_no_fault_of_a_calm_network(rng: np.random.Generator) -> None:
    model = waves(1.0)
    int8, feeds = int8_of(model, rng), samples_of(model, rng, 24)
    gap = gap_between(model, int8, halved(int8), feeds)
    assert not gap.explained
    chance = gap_between(model, int8, jitter_scales(int8), feeds)
    assert allow_chance([gap], [chance]) == (gap,)
