"""Scales that level channels: no range grows, and dead channels go with the others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphs.channel_groups import ChannelGroups
from graphs.view import GraphView
from quantization.improve.channels.equalize import group_scales
from quantization.improve.improve import improve
from quantization.improve.improved import as_calibrated
from tests.accuracy_models import calibrated, pointwise, sqnr_db, uneven_residual
from tests.networks import Builder


def test_no_range_grows_with_the_largest(rng: np.random.Generator) -> None:
    model = uneven_residual()
    groups = ChannelGroups(GraphView(model))
    names = [name for name in ("Relu_0", "Relu_2", "Relu_4") if name in groups]
    amax = {name: rng.uniform(0.1, 9.0, len(groups.variables(name))) for name in names}
    full, mean = group_scales(groups, amax)
    for name in names:
        scale = full[groups.variables(name)]
        assert (scale <= 1).all()
        assert (amax[name] / scale).max() == pytest.approx(amax[name].max())
    assert (mean <= full + 1e-12).all()


def test_one_tensor_alone_is_levelled() -> None:
    model = pointwise(layers=1)
    groups = ChannelGroups(GraphView(model))
    amax = np.geomspace(0.1, 5.0, 32)
    full, mean = group_scales(groups, {"Relu_0": amax})
    np.testing.assert_allclose(amax / full[groups.variables("Relu_0")], 5.0)
    np.testing.assert_allclose(full[1:], mean[1:])


def test_dead_channels_are_scaled_like_the_others() -> None:
    groups = ChannelGroups(GraphView(pointwise(layers=1)))
    amax = np.geomspace(0.5, 2.0, 32)
    amax[7] = 0.0
    scale = group_scales(groups, {"Relu_0": amax})[0][groups.variables("Relu_0")]
    alive = scale[amax > 0]
    np.testing.assert_allclose(alive, amax[amax > 0] / 2.0)
    assert scale[7] == pytest.approx(np.exp(np.log(alive).mean()))
    nothing = group_scales(groups, {"Relu_0": np.zeros(32)})
    assert all((scales == 1).all() for scales in nothing)


def test_a_channel_that_is_dead_in_one_of_two_tensors_goes_by_the_other() -> None:
    groups = ChannelGroups(GraphView(uneven_residual()))
    names = ("Relu_0", "Relu_2")
    shared = groups.variables(names[0])
    assert (groups.variables(names[1]) == shared).all()
    amax = {name: np.full(len(shared), 4.0) for name in names}
    amax[names[0]][3], amax[names[1]][3] = 0.0, 1.0
    for scales in group_scales(groups, amax):
        assert scales[shared[3]] == pytest.approx(0.25)


def perceptron(rng: np.random.Generator) -> onnx.ModelProto:
    """Layers whose channels differ by e^±2.5, some of which answer no sample."""
    net, width = Builder(3), 96
    x, before = net.input("x", ("N", width)), np.ones(width)
    for layer in range(4):
        scale = np.exp(rng.uniform(-2.5, 2.5, width))
        weight = rng.normal(size=(width, width)) * np.sqrt(2 / width) * scale / before[:, None]
        bias = np.where(rng.random(width) < 0.2, -20.0, 0.1) * scale
        constants = (net.constant(each.astype(np.float32)) for each in (weight, bias))
        x, before = net.op("Gemm", x, *constants), scale
        x = net.relu(x) if layer < 3 else x
    return net.build("perceptron", x)


def test_a_perceptron_with_dead_channels_is_equalised(rng: np.random.Generator) -> None:
    model = perceptron(rng)
    feeds = [{"x": rng.normal(size=(1, 96)).astype(np.float32)} for _ in range(96)]
    placement, ranges = calibrated(model, feeds[:64])
    best, _ = improve(model, placement, ranges, feeds[:64])
    plain = as_calibrated(model, ranges).quantized(placement)
    levels = [sqnr_db(model, each, feeds[64:]) for each in (plain, best.quantized(placement))]
    assert levels[1] > levels[0] + 8
