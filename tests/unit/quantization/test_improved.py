"""An improved network of which nothing is left in INT8 is the float network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphs.view import GraphView
from quantization.improve.improve import _Walk, improve_layers
from quantization.improve.improved import as_calibrated
from quantization.improve.methods import Methods
from quantization.placement.fusion_groups import fusion_groups, leave_float
from tests.accuracy_models import calibrated, largest_difference, samples_of, sqnr_db
from tests.networks import Builder


def headed(*, bias: bool = True) -> onnx.ModelProto:
    """Convolutions, and a small last layer that stays in float from the start."""
    net = Builder(seed=7)
    x = net.input("x", (1, 16, 10, 10))
    for _ in range(3):
        x = net.relu(net.conv(x, 32, bias=bias))
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


def tied() -> tuple[onnx.ModelProto, str]:
    """A weight that a product reads, which is INT8, and a sum, which is not."""
    net = Builder(seed=8)
    weight = net.weight((16, 16), 16)
    product = net.op("MatMul", net.op("MatMul", net.input("x", (1, 16, 16)), weight), weight)
    return net.build("tied", net.op("Add", product, weight)), weight


@pytest.mark.parametrize("bias", [True, False])
def test_a_variant_that_is_tried_holds_no_weight_twice(
    bias: bool, rng: np.random.Generator
) -> None:
    """A network of gigabytes is copied once, when it is chosen."""
    model = headed(bias=bias)
    before, feeds = model.SerializeToString(), samples_of(model, rng, 8)
    placement, ranges = calibrated(model, feeds)
    tried = _Walk(placement=placement, samples=feeds)(
        as_calibrated(model, ranges), Methods(equalizing=False), None
    )
    coded = {weight.tensor for weight in placement.weights}
    without = {t.name for t in tried.model.graph.initializer if not t.raw_data}
    assert without == coded == {*tried.elsewhere} == {*tried.weights}
    first = tried.quantized(placement)
    whole = tried.whole()
    assert all(tensor.raw_data for tensor in whole.model.graph.initializer)
    assert first.graph == whole.quantized(placement).graph
    assert largest_difference(model, whole.model, feeds[0]) < 1.0
    assert whole.whole() is whole
    assert model.SerializeToString() == before


def test_a_weight_that_float_layers_read_beside_stays(rng: np.random.Generator) -> None:
    model, weight = tied()
    feeds = samples_of(model, rng, 8)
    placement, ranges = calibrated(model, feeds)
    assert weight in {each.tensor for each in placement.weights}
    walk = _Walk(placement=placement, samples=feeds)
    tried = walk(as_calibrated(model, ranges), Methods(equalizing=False), None)
    assert weight not in tried.elsewhere
    assert sqnr_db(model, tried.quantized(placement), feeds) > 20
