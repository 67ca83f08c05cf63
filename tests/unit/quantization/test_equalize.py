"""Cross-layer equalisation: the same results, channels of like ranges, better INT8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from calibrators.ranges.ranges import Range
from graphs.amend import add_bias
from graphs.channel_groups import ChannelGroups
from graphs.identity import graph_hash
from graphs.layer_matrix import layer_matrix
from graphs.view import GraphView
from quantization.improve.centring import move_bounds
from quantization.improve.channels import choice
from quantization.improve.channels.choice import equalized
from quantization.improve.channels.equalize import (
    equalizing_factors,
    inserting_factors,
    scalable,
)
from quantization.improve.channels.judge import reader_errors
from quantization.improve.channels.rescale import Factor, rescale
from quantization.improve.improve import _closest, improve, improve_layers
from quantization.improve.improved import as_calibrated
from quantization.improve.methods import NOTHING, Methods
from quantization.measure.execution import load_onnxruntime
from quantization.placement import place
from tests.accuracy_models import (
    calibrated,
    largest_difference,
    pointwise,
    samples_of,
    sqnr_db,
    uneven_depthwise,
    uneven_residual,
)
from tests.networks import NETWORKS, Builder
from tests.networks.running import random_feeds

EQUALIZING = Methods(**{name: name == "equalizing" for name in Methods.__dataclass_fields__})


def joined() -> onnx.ModelProto:
    """Concat, a channel-padded shortcut, pooling to Gemm: everything that copies channels."""
    net = Builder(9)
    x = net.relu(net.conv(net.input("x", (1, 8, 8, 8)), 16))
    both = net.concat(net.relu(net.conv(x, 16)), net.op("MaxPool", x, kernel_shape=[1, 1]))
    pads = net.ints(0, 4, 0, 0, 0, 12, 0, 0)
    padded = net.op("Pad", both, pads)
    net.channels[padded] = 48
    total = net.relu(net.op("Add", net.conv(both, 48), padded))
    flat = net.op("Flatten", net.op("GlobalAveragePool", total))
    return net.build("joined", net.gemm(flat, 48, 10))


@pytest.mark.parametrize("name", [*NETWORKS, "joined", "uneven", "pointwise"])
def test_any_scales_keep_the_results(name: str, rng: np.random.Generator) -> None:
    own = {"joined": joined, "uneven": uneven_residual, "pointwise": pointwise}
    model = {**NETWORKS, **own}[name]()
    groups = ChannelGroups(GraphView(model))
    scales = rng.uniform(0.2, 5.0, groups.count)
    scales[0] = 1.0
    changed = rescale(GraphView(model), [*equalizing_factors(groups, scales)])
    onnx.checker.check_model(changed, full_check=True)
    assert largest_difference(model, changed, random_feeds(model, rng)) < 1e-4
    assert place(changed, profile="tensorrt") == place(model, profile="tensorrt")


@pytest.mark.parametrize("name", ["joined", "resnet_basic", "resnet_bottleneck"])
def test_most_weights_of_residual_networks_take_part(name: str) -> None:
    model = {**NETWORKS, "joined": joined}[name]()
    groups = ChannelGroups(GraphView(model))
    assert list(groups.layers)
    free = [groups.variables(layer.node.outputs[0]).any() for layer in groups.layers]
    assert sum(free) == len(free) - 1  # all but the network's output


def test_a_residual_stage_shares_its_channels() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 8, 6, 6)), 16))
    inner = net.relu(net.conv(x, 16))
    total = net.relu(net.op("Add", net.conv(inner, 16), x))
    net.channels[total] = 16
    model = net.build("residual", net.conv(net.relu(net.conv(total, 16)), 8))
    groups = ChannelGroups(GraphView(model))
    np.testing.assert_array_equal(groups.variables(x), groups.variables(total))
    assert not set(groups.variables(x)) & set(groups.variables(inner))
    assert sorted(map(sorted, groups.components([x, inner, total]))) == [
        sorted([x, total]),
        [inner],
    ]


def test_padding_moves_channels() -> None:
    model = joined()
    groups = ChannelGroups(GraphView(model))
    names = {node.op_type: node.output[0] for node in model.graph.node}
    concat, padded = groups.variables(names["Concat"]), groups.variables(names["Pad"])
    np.testing.assert_array_equal(padded[4:36], concat)
    assert not set(padded[:4]) & set(concat)


def test_sigmoid_clip_inputs_and_outputs_are_pinned() -> None:
    net = Builder()
    image = net.input("x", (1, 16, 6, 6))
    silu = net.silu(net.conv(image, 16))
    clip = net.relu6(net.conv(silu, 16))
    last = net.conv(net.relu(net.conv(clip, 16)), 16)
    groups = ChannelGroups(GraphView(net.build("pinned", last)))
    for name in (image, silu, clip, last):
        assert not groups.variables(name).any()
    assert groups.variables("Relu_0").all()


@pytest.mark.parametrize("model", [uneven_depthwise("Silu"), pointwise("Clip")])
def test_a_mul_keeps_the_results(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    view = GraphView(model)
    placement = place(model, profile="tensorrt")
    tensors = [name for name in placement.tensors if scalable(view, name)]
    assert tensors
    scales = {name: rng.uniform(0.1, 3.0, view.shape(name)[1]) for name in tensors}
    changed = rescale(GraphView(model), [*inserting_factors(view, scales)], scales)
    onnx.checker.check_model(changed, full_check=True)
    assert sum(node.op_type == "Mul" for node in changed.graph.node) >= len(tensors)
    assert largest_difference(model, changed, samples_of(model, rng, 1)[0]) < 1e-4
    assert place(changed, profile="tensorrt").tensors == placement.tensors


def test_inputs_outputs_and_sums_take_no_mul() -> None:
    model = uneven_residual()
    view = GraphView(model)
    assert not scalable(view, "x")
    assert not scalable(view, view.outputs[0])
    assert not scalable(view, next(n for n in view.nodes if n.op_type == "Add").inputs[1])


@pytest.mark.parametrize(
    ("model", "gain_db"),
    [(uneven_depthwise(), 6), (uneven_depthwise("Silu"), 6), (uneven_residual(), 3)],
    ids=["relu", "silu", "residual"],
)
def test_it_helps_where_channels_differ(
    model: onnx.ModelProto, gain_db: float, rng: np.random.Generator
) -> None:
    feeds = samples_of(model, rng, 12)
    placement, ranges = calibrated(model, feeds[:8])
    plain, equal = (
        improve_layers(model, placement, ranges, feeds[:8], methods=methods)
        for methods in (NOTHING, EQUALIZING)
    )
    before = sqnr_db(model, plain.quantized(placement), feeds[8:])
    after = sqnr_db(model, equal.quantized(placement), feeds[8:])
    assert after > before + gain_db


def test_a_mul_is_not_spent_on_little(rng: np.random.Generator) -> None:
    model = pointwise("Clip")
    feeds = [{"x": 20 * feed["x"]} for feed in samples_of(model, rng, 6)]
    placement, ranges = calibrated(model, feeds)
    changed, new = equalized(model, placement, ranges, feeds, seed=0)[0]
    assert not [node for node in changed.graph.node if node.op_type == "Mul"]
    assert new == ranges


@pytest.mark.parametrize("exact_part", ["weights", "columns"])
def test_an_error_of_weights_counts_four_times(exact_part: str, rng: np.random.Generator) -> None:
    """What pools and sums behind a layer average away is the error of activations alone."""
    matrix, columns = rng.normal(size=(16, 24)), rng.normal(size=(512, 1, 16))
    codes = {"weights": (16, 24), "columns": (512, 1, 16)}[exact_part]
    whole = rng.integers(-127, 128, codes)
    whole[0] = 127
    matrix, columns = (whole, columns) if exact_part == "weights" else (matrix, whole)
    net = Builder()
    y = net.op("MatMul", net.input("x", (1, 16)), net.constant(matrix.astype(np.float32)))
    view = GraphView(net.build("one", y))
    layer = layer_matrix(view, view.nodes[0])
    largest = float(np.abs(columns).max())
    found = reader_errors(layer, columns.astype(np.float32), np.ones(16), largest)[0]

    steps = np.abs(matrix).max(axis=0) / 127
    rounded = np.rint(matrix / steps) * steps
    seen = np.rint(columns[:, 0] / (largest / 127)) * largest / 127
    exact = columns[:, 0] @ matrix
    error = (seen @ rounded - exact).var(axis=0).mean() / exact.var(axis=0).mean()
    assert found == pytest.approx(error if exact_part == "weights" else 4 * error, rel=1e-2)


@pytest.mark.parametrize("kept", [False, True], ids=["all readers", "some readers"])
def test_a_constant_of_several_layers_takes_the_factors_of_each(
    kept: bool, rng: np.random.Generator
) -> None:
    net = Builder(5)
    x = net.input("x", (1, 8))
    weight = net.constant(rng.normal(size=(8, 8)).astype(np.float32))
    outputs = [net.op("MatMul", x, weight) for _ in range(3)]
    model = net.build("shared", *outputs)
    view = GraphView(model)
    scales = rng.uniform(0.2, 5.0, (2 if kept else 3, 8))
    factors = [
        Factor(node=view.nodes[place], index=1, values=values)
        for place, scale in enumerate(scales)
        for values in (np.sqrt(scale), np.sqrt(scale))
    ]
    changed = rescale(GraphView(model), factors)
    assert len(changed.graph.initializer) == 3
    assert sum(tensor.name == weight for tensor in changed.graph.initializer) == 1
    feed = {"x": rng.normal(size=(1, 8)).astype(np.float32)}
    before, after = load_onnxruntime(model)(feed), load_onnxruntime(changed)(feed)
    for name, scale in zip(outputs, [*scales, np.ones(8)], strict=False):
        np.testing.assert_allclose(after[name], before[name] * scale, rtol=1e-4, atol=1e-6)


def test_nothing_to_change_is_no_copy(rng: np.random.Generator) -> None:
    """A network of gigabytes is held once more for each copy."""
    model = NETWORKS["resnet_basic"]()
    view = GraphView(model)
    groups = ChannelGroups(view)
    assert not [*equalizing_factors(groups, np.ones(groups.count))]
    assert rescale(GraphView(model), [], {}) is model
    assert move_bounds(model, {}, {}) is model
    assert add_bias(model, {}) is model
    feeds = samples_of(model, rng, 8)
    placement, ranges = calibrated(model, feeds)
    best, _ = improve(model, placement, ranges, feeds, variants=[NOTHING])
    assert best.model is model


def test_half_way_is_a_second_network(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    model = uneven_residual()
    feeds = samples_of(model, rng, 8)
    placement, ranges = calibrated(model, feeds)
    first, second = equalized(model, placement, ranges, feeds, seed=0)
    for changed, _ in (first, second):
        assert largest_difference(model, changed, feeds[0]) < 1e-4
    assert graph_hash(first[0]) != graph_hash(second[0])
    monkeypatch.setattr(choice, "is_large", lambda _: True)  # and would be held once more
    (alone,) = equalized(model, placement, ranges, feeds, seed=0)
    assert graph_hash(alone[0]) == graph_hash(first[0])


@pytest.mark.parametrize("order", [1, -1])
def test_the_closer_network_is_begun_with(order: int, rng: np.random.Generator) -> None:
    model = uneven_residual()
    feeds = samples_of(model, rng, 8)
    placement, ranges = calibrated(model, feeds)
    cut = {name: Range(amax=ranges[name].amax / 50, method="minmax") for name in ranges.tensors}
    starts = [as_calibrated(model, ranges), as_calibrated(model, ranges.replace(cut))]
    assert _closest(starts[::order], placement, model, feeds) is starts[0]
