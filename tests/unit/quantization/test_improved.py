"""An improved network of which nothing is left in INT8 is the float network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphs.view import GraphView
from quantization.improve.improve import improve_layers
from quantization.improve.methods import Methods
from quantization.placement.fusion_groups import fusion_groups, leave_float
from tests.accuracy_models import calibrated, largest_difference, samples_of
from tests.networks import Builder


def headed() -> onnx.ModelProto:
    """Convolutions, and a small last layer that stays in float from the start."""
    net = Builder(seed=7)
    x = net.input("x", (1, 16, 10, 10))
    for _ in range(3):
        x = net.relu(net.conv(x, 32))
    pooled = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.channels[pooled] = 32
    return net.build("headed", net.gemm(pooled, 32, 10))


@pytest.mark.parametrize("methods", [Methods(), Methods(equalizing=False, centring=False)])
def test_nothing_left_in_int8_is_the_float_network(
    methods: Methods, rng: np.random.Generator
) -> None:
    """The head made up for the errors of layers before it, of which there are none then."""
    model = headed()
    feeds = samples_of(model, rng, 12)
    placement, ranges = calibrated(model, feeds)
    floating = {layer.node for layer in placement.floating}
    assert floating
    found = improve_layers(model, placement, ranges, feeds, methods=methods)
    assert set(found.floating) == floating
    groups = fusion_groups(GraphView(model), placement)
    everything = leave_float(placement, groups, why="all")
    assert not everything.activations
    assert largest_difference(model, found.leaving(everything).model, feeds[0]) < 1e-4
    assert largest_difference(model, found.model, feeds[0]) > 1e-4
    some = leave_float(placement, groups[:1], why="one")
    assert set(found.leaving(some).floating) == floating
