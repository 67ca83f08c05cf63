"""Centred activations: the same results from graphs whose tensors need half the range."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphs.amend import add_bias
from graphs.view import GraphView
from quantization.improve.centring import centrable, centring_shifts, move_bounds
from quantization.improve.improve import improve_layers
from quantization.improve.methods import Methods
from quantization.lint.lint import lint
from quantization.measure.execution import load_onnxruntime
from quantization.placement import place
from tests.accuracy_models import (
    calibrated,
    largest_difference,
    pointwise,
    samples_of,
    sqnr_db,
)
from tests.networks import Builder, mobilenet_v2
from tests.networks.running import minmax_ranges

RANGES = Methods(**{name: name == "ranges" for name in Methods.__dataclass_fields__})
CENTRING = Methods(
    **{name: name in ("ranges", "centring") for name in Methods.__dataclass_fields__}
)


def centred(model: onnx.ModelProto, centre: float) -> onnx.ModelProto:
    view = GraphView(model)
    plans = centrable(view, place(model, profile="tensorrt"))
    centres = dict.fromkeys(plans, centre)
    shifts = centring_shifts(view, plans, centres)
    return add_bias(move_bounds(model, plans, centres), shifts)


@pytest.mark.parametrize(
    ("model", "count"),
    [(pointwise(), 4), (pointwise("Clip"), 4), (mobilenet_v2(), 5), (pointwise("SiLU"), 4)],
    ids=["relu", "relu6", "mobilenet_v2", "silu"],
)
@pytest.mark.parametrize("centre", [0.7, 3.0])
def test_any_centre_keeps_the_results(
    model: onnx.ModelProto, count: int, centre: float, rng: np.random.Generator
) -> None:
    placement = place(model, profile="tensorrt")
    assert len(centrable(GraphView(model), placement)) == count
    changed = centred(model, centre)
    onnx.checker.check_model(changed, full_check=True)
    assert largest_difference(model, changed, samples_of(model, rng, 1)[0]) < 1e-4
    assert place(changed, profile="tensorrt") == placement


def test_a_moved_tensor_is_the_old_one_less_its_centre(rng: np.random.Generator) -> None:
    model = pointwise("Clip", layers=2)
    view = GraphView(model)
    plans = centrable(view, place(model, profile="tensorrt"))
    tensor = next(iter(plans))
    changed = add_bias(
        move_bounds(model, plans, {tensor: 3.0}), centring_shifts(view, plans, {tensor: 3.0})
    )
    both = []
    for graph in (model, changed):
        graph.graph.output.append(onnx.ValueInfoProto(name=tensor))
        both.append(load_onnxruntime(graph)(samples_of(model, np.random.default_rng(0), 1)[0]))
    np.testing.assert_allclose(both[1][tensor], both[0][tensor] - 3.0, atol=1e-5)


def awkward(kind: str) -> onnx.ModelProto:
    """A ReLU before a 1×1 convolution, and one reason why it cannot move."""
    net = Builder()
    x = net.conv(net.input("x", (1, 32, 6, 6)), 32, 1)
    y = net.relu(x)
    outputs = [net.relu(net.conv(y, 32, 3 if kind == "padded reader" else 1))]
    if kind == "residual reader":
        outputs = [net.op("Add", outputs[0], y)]
    if kind == "output":
        outputs.append(y)
    if kind == "shared pre-activation":
        outputs.append(net.op("Sigmoid", x))
    net.channels[outputs[0]] = 32
    return net.build("awkward", net.conv(outputs[0], 16, 1), *outputs[1:])


@pytest.mark.parametrize(
    "kind", ["padded reader", "residual reader", "output", "shared pre-activation"]
)
def test_what_cannot_move(kind: str) -> None:
    model = awkward(kind)
    found = centrable(GraphView(model), place(model, profile="tensorrt"))
    assert "Relu_0" not in found
    assert "Relu_0" in centrable(
        GraphView(awkward("nothing")), place(awkward("nothing"), profile="tensorrt")
    )


@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_it_wins_a_bit(activation: str, rng: np.random.Generator) -> None:
    model = pointwise(activation)
    feeds = samples_of(model, rng, 64)
    placement, ranges = calibrated(model, feeds[:32])
    before, after = (
        improve_layers(model, placement, ranges, feeds[:32], methods=methods)
        for methods in (RANGES, CENTRING)
    )
    int8 = after.quantized(placement)
    unseen = feeds[32:]
    gain = sqnr_db(model, int8, unseen) - sqnr_db(model, before.quantized(placement), unseen)
    assert gain > 1.5  # the input and the weights keep their errors
    assert not [finding for finding in lint(int8) if finding.severity == "fatal"]


def test_a_silu_moves_by_a_sub_where_that_wins(rng: np.random.Generator) -> None:
    model = pointwise("SiLU")
    feeds = samples_of(model, rng, 64)
    placement, ranges = calibrated(model, feeds[:32])
    before, after = (
        improve_layers(model, placement, ranges, feeds[:32], methods=methods)
        for methods in (RANGES, CENTRING)
    )
    unseen, int8 = feeds[32:], after.quantized(placement)
    moved = [node for node in after.model.graph.node if node.op_type == "Sub"]
    assert moved
    for node in moved:
        assert after.ranges[node.output[0]].amax < before.ranges[node.output[0]].amax
    gain = sqnr_db(model, int8, unseen) - sqnr_db(model, before.quantized(placement), unseen)
    assert gain > 0.5
    assert not [finding for finding in lint(int8) if finding.severity == "fatal"]


def test_unsigned_codes_need_no_centring(rng: np.random.Generator) -> None:
    model = pointwise()
    feeds = samples_of(model, rng, 16)
    placements = [place(model, profile="cpu", unsigned=each) for each in (False, True)]
    ranges = minmax_ranges(model, placements[0].tensors, feeds[0])
    signed, unsigned = (
        improve_layers(model, each, ranges, feeds, methods=CENTRING) for each in placements
    )
    kinds = [{node.op_type for node in each.model.graph.node} for each in (signed, unsigned)]
    assert kinds == [{"Conv", "Clip"}, {"Conv", "Relu"}]
    int8 = unsigned.quantized(placements[1])
    stored = {tensor.name: tensor.data_type for tensor in int8.graph.initializer}
    zeros = [n.input[2] for n in int8.graph.node if n.op_type == "QuantizeLinear"]
    assert [stored[name] for name in zeros].count(onnx.TensorProto.UINT8) == 4
    assert sqnr_db(model, int8, feeds) > 25
