"""Channels of the last axis, equalised by the constants in front of products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphs.view import GraphView
from quantization.improve.channels.choice import equalized
from quantization.improve.channels.rescale import rescale
from quantization.improve.channels.smooth import (
    absorbers,
    last_axis_readers,
    smooth_sets,
    smoothing_factors,
)
from quantization.measure.execution import load_onnxruntime
from quantization.placement import place
from quantization.write.insert import insert_qdq
from tests.accuracy_models import calibrated, largest_difference, sqnr_db
from tests.networks import Builder

WIDTH, TOKENS = 32, 12


def normed(net: Builder, x: str) -> str:
    return net.layer_norm(x, WIDTH)


def decomposed(net: Builder, x: str) -> str:
    """A normalisation as old exporters write it, its bias first, then a divisor."""
    centred = net.op("Sub", x, net.op("ReduceMean", x, axes=[-1], keepdims=1))
    power = net.op("ReduceMean", net.op("Mul", centred, centred), axes=[-1], keepdims=1)
    even = net.op("Div", centred, net.op("Sqrt", net.op("Add", power, net.scalar(1e-5))))
    gamma = net.constant(net.rng.uniform(0.5, 2.0, (1, 1, WIDTH)).astype(np.float32))
    shifted = net.op("Add", net.op("Mul", even, gamma), net.bias(WIDTH))
    return net.op("Div", shifted, net.scalar(1.7))


def gated(net: Builder, x: str) -> str:
    """The input of the last product of a gated layer: only the plain factor takes scales."""
    return net.op("Mul", net.silu(net.linear(x, WIDTH, WIDTH)), net.linear(x, WIDTH, WIDTH))


def rectified(net: Builder, x: str) -> str:
    return net.relu(net.linear(x, WIDTH, WIDTH))


def erf_gelu(net: Builder, x: str) -> str:
    return net.gelu(net.linear(x, WIDTH, WIDTH))


def subtracted(net: Builder, x: str) -> str:
    return net.op("Sub", net.constant(np.ones(WIDTH, np.float32)), net.layer_norm(x, WIDTH))


MADE: dict[str, tuple[Callable[[Builder, str], str], int]] = {
    "LayerNormalization": (normed, 2),
    "its operators": (decomposed, 1),
    "gated": (gated, 2),
    "ReLU": (rectified, 2),
    "GELU": (erf_gelu, 1),
    "from a constant": (subtracted, 3),
}


def network(made: Callable[[Builder, str], str], readers: int = 2) -> tuple[onnx.ModelProto, str]:
    net = Builder(seed=4)
    read = made(net, net.input("x", ("N", TOKENS, WIDTH)))
    outputs = [net.linear(read, WIDTH, WIDTH) for _ in range(readers)]
    return net.build("smoothed", *outputs), read


def tokens(rng: np.random.Generator, count: int) -> list[dict[str, np.ndarray]]:
    shape = (1, TOKENS, WIDTH)
    return [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("shared", [False, True])
def test_any_scales_keep_the_results(name: str, shared: bool, rng: np.random.Generator) -> None:
    made, count = MADE[name]
    model, read = network(made)
    if shared:  # one weight for both readers
        first, second = [n for n in model.graph.node if n.op_type == "MatMul"][-2:]
        second.input[1] = first.input[1]
    view = GraphView(model)
    assert len(last_axis_readers(view, read)) == 2
    assert len(absorbers(view, read)) == count
    scale = rng.uniform(0.05, 4.0, WIDTH)
    changed = rescale(GraphView(model), [*smoothing_factors(view, {read: scale}, ())])
    onnx.checker.check_model(changed, full_check=True)
    feeds = tokens(rng, 1)[0]
    assert largest_difference(model, changed, feeds) < 1e-4
    found = onnx.ModelProto.FromString(changed.SerializeToString())
    for each in (model, found):
        each.graph.output.append(onnx.helper.make_tensor_value_info(read, 1, None))
    before, after = (_run(each, feeds)[read] for each in (model, found))
    np.testing.assert_allclose(after * scale, before, rtol=1e-3, atol=1e-5)


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(load_onnxruntime(model)(feeds))


@pytest.mark.parametrize(
    "made",
    [
        lambda net, x: net.op("Softmax", x, axis=-1),
        lambda net, x: net.op("Add", net.layer_norm(x, WIDTH), x),
        lambda net, x: net.silu(net.linear(x, WIDTH, WIDTH)),
        lambda net, x: net.op("LayerNormalization", x, *_square(net), axis=-2),
        lambda net, x: net.op("Mul", x, x),
    ],
)
def test_what_has_no_constant_takes_none(made: Callable[[Builder, str], str]) -> None:
    model, read = network(made)
    assert absorbers(GraphView(model), read) == ()


def _square(net: Builder) -> tuple[str, str]:
    values = np.ones((TOKENS, WIDTH), np.float32)
    return net.constant(values), net.constant(values)


def test_another_reader_or_a_range_between_forbids_it() -> None:
    net = Builder(seed=4)
    x = net.input("x", ("N", TOKENS, WIDTH))
    read = net.layer_norm(x, WIDTH)
    residual = net.op("Add", net.linear(read, WIDTH, WIDTH), read)
    view = GraphView(net.build("post_norm", net.linear(residual, WIDTH, WIDTH)))
    assert last_axis_readers(view, read) == ()
    model, read = network(rectified)
    view = GraphView(model)
    inner = view.producer(read)
    assert inner is not None
    assert absorbers(view, read, {read})
    assert absorbers(view, read, {read, inner.inputs[0]}) == ()


def test_sets_level_the_channels_and_take_dead_ones_along(rng: np.random.Generator) -> None:
    model, read = network(normed)
    readers = last_axis_readers(GraphView(model), read)
    amax = rng.uniform(0.1, 8.0, WIDTH)
    amax[3] = 0.0
    sets = smooth_sets(amax, readers)
    alive = amax > 0
    assert (sets[0] == 1).all()
    np.testing.assert_allclose(sets[2:, 3], np.exp(np.log(sets[2:, alive]).mean(axis=1)))
    np.testing.assert_allclose(amax[alive] / sets[2, alive], amax.max())
    np.testing.assert_allclose(sets[1] ** 2, sets[2])
    weights = np.max([np.abs(r.matrix[0]).max(axis=0) for r in readers], axis=0)
    balance = (amax / sets[3])[alive] / (weights * sets[3])[alive]
    np.testing.assert_allclose(balance, balance[0])


def outliers(rng: np.random.Generator) -> onnx.ModelProto:
    """A normalisation with four channels 60 times larger, all of equal use."""
    model, read = network(normed)
    view = GraphView(model)
    scale = np.ones(WIDTH)
    scale[rng.choice(WIDTH, 4, replace=False)] = 1 / 60
    assert absorbers(view, read)
    return rescale(GraphView(model), [*smoothing_factors(view, {read: scale}, ())])


def test_outlier_channels_of_a_norm_cost_nothing(rng: np.random.Generator) -> None:
    model = outliers(rng)
    feeds = tokens(rng, 12)
    placement, ranges = calibrated(model, feeds)
    changed, fitted = equalized(model, placement, ranges, feeds, seed=0)[0]
    plain = sqnr_db(model, insert_qdq(model, placement, ranges), feeds)
    better = sqnr_db(model, insert_qdq(changed, placement, fitted), feeds)
    assert [n.op_type for n in changed.graph.node] == [n.op_type for n in model.graph.node]
    assert plain < 25
    assert better > plain + 6
    assert place(changed) == place(model)


def test_even_channels_stay_as_they_are(rng: np.random.Generator) -> None:
    model, _ = network(normed)
    feeds = tokens(rng, 12)
    placement, ranges = calibrated(model, feeds)
    changed, _ = equalized(model, placement, ranges, feeds, seed=0)[0]
    before, after = (
        {t.name: numpy_helper.to_array(t) for t in each.graph.initializer}
        for each in (model, changed)
    )
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)
