"""Cross-layer equalisation: the same results, channels of like ranges, better INT8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from quantization.equalize import channel_scales, equalizable, equalize
from quantization.equalize_choice import choose_equalization
from quantization.execution import load_onnxruntime
from quantization.graph_view import GraphView
from quantization.improve import improve_layers
from quantization.improve_methods import NOTHING, Methods
from quantization.layer_matrix import layer_matrix
from quantization.placement import place
from tests.accuracy_models import (
    calibrated,
    largest_difference,
    pointwise,
    samples_of,
    sqnr_db,
    uneven_depthwise,
)
from tests.networks import Builder, resnet

EQUALIZING = Methods(**{name: name == "equalizing" for name in Methods.__dataclass_fields__})


def random_scales(model: onnx.ModelProto, rng: np.random.Generator) -> dict[str, np.ndarray]:
    view = GraphView(model)
    plans = equalizable(view, place(model, profile="tensorrt"))
    return {name: rng.uniform(0.2, 5.0, view.shape(name)[1]) for name in plans}


@pytest.mark.parametrize(
    "model",
    [uneven_depthwise(), uneven_depthwise("Silu"), uneven_depthwise("LeakyRelu"), resnet(),
     pointwise("Clip")],
    ids=["relu", "silu", "leaky", "resnet", "relu6"],
)  # fmt: skip
def test_any_scales_keep_the_results(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    view = GraphView(model)
    plans = equalizable(view, place(model, profile="tensorrt"))
    assert plans
    changed = equalize(model, plans, random_scales(model, rng))
    onnx.checker.check_model(changed, full_check=True)
    feeds = samples_of(model, rng, 1)[0]
    assert largest_difference(model, changed, feeds) < 1e-4
    assert place(changed, profile="tensorrt") == place(model, profile="tensorrt")


def test_relu_scales_its_producer_and_silu_and_relu6_need_a_mul() -> None:
    relu, silu, clip = (
        equalizable(GraphView(m), place(m, profile="tensorrt"))
        for m in (uneven_depthwise(), uneven_depthwise("Silu"), pointwise("Clip"))
    )
    assert all(plan.producer is not None for plan in relu.values())
    first = next(iter(silu.values()))
    assert any(plan.producer is None for plan in silu.values())
    assert first.rank == 4
    assert all(plan.producer is None for plan in clip.values())


def test_tensors_with_other_readers_are_left_alone() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 16, 6, 6)), 16))
    y = net.relu(net.conv(x, 16))
    total = net.relu(net.op("Add", net.conv(y, 16), x))
    net.channels[total] = 16
    model = net.build("residual", net.relu(net.conv(total, 16)), y)
    found = equalizable(GraphView(model), place(model, profile="tensorrt"))
    assert x not in found  # the Add reads it too
    assert y not in found  # an output of the network
    assert total in found


def test_alpha_one_levels_the_activation_and_a_half_shares() -> None:
    model = uneven_depthwise()
    view = GraphView(model)
    conv = next(n for n in view.nodes if n.integer("group", 1) == 32)
    layer = layer_matrix(view, conv)
    assert layer is not None
    amax = np.geomspace(0.1, 100, 32)
    scale = channel_scales(amax, [layer], 1.0)
    np.testing.assert_allclose(np.ptp(amax / scale), 0, atol=1e-9)
    half = channel_scales(amax, [layer], 0.5)
    seen = np.abs(layer.matrix).max(axis=(1, 2))
    np.testing.assert_allclose(np.ptp(np.log(amax / half) - np.log(seen * half)), 0, atol=1e-9)


def test_dead_channels_keep_their_scale() -> None:
    model = uneven_depthwise()
    view = GraphView(model)
    conv = next(n for n in view.nodes if n.integer("group", 1) == 32)
    layer = layer_matrix(view, conv)
    assert layer is not None
    amax = np.full(32, 2.0)
    amax[7] = 0.0
    assert channel_scales(amax, [layer], 1.0)[7] == 1.0


@pytest.mark.parametrize(("activation", "gain_db"), [("Relu", 6), ("Silu", 6)])
def test_it_helps_where_channels_differ(
    activation: str, gain_db: float, rng: np.random.Generator
) -> None:
    model = uneven_depthwise(activation)
    feeds = samples_of(model, rng, 12)
    placement, ranges = calibrated(model, feeds[:8])
    plain, equal = (
        improve_layers(model, placement, ranges, feeds[:8], load_onnxruntime, methods=methods)
        for methods in (NOTHING, EQUALIZING)
    )
    before = sqnr_db(model, plain.quantized(placement), feeds[8:])
    after = sqnr_db(model, equal.quantized(placement), feeds[8:])
    assert after > before + gain_db


def test_a_mul_is_not_spent_on_little(rng: np.random.Generator) -> None:
    model = pointwise("Clip")
    feeds = samples_of(model, rng, 6)
    view = GraphView(model)
    plans = equalizable(view, place(model, profile="tensorrt"))
    assert choose_equalization(view, plans, feeds, load_onnxruntime, seed=0) == {}
