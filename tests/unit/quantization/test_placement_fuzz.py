"""Random graphs and odd ones: placement and insertion never fail otherwise than with a sentence."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from artefacts.errors import ModelError
from quantization.placement import place
from quantization.write.insert import insert_qdq
from tests.networks import Builder
from tests.networks.running import minmax_ranges, random_feeds, run, sqnr_db

PROFILES = st.sampled_from(["tensorrt", "cpu", "dla"])


@st.composite
def graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """Maps of a few sizes joined by random layers; some tensors are outputs on the way."""
    net = Builder(draw(st.integers(0, 99)))
    maps = [(net.input("x", (1, draw(st.sampled_from([3, 8, 16])), 8, 8)), 8)]
    for _ in range(draw(st.integers(1, 12))):
        x, side = draw(st.sampled_from(maps))
        maps.append(draw(st.sampled_from(_layers(net, maps, x, side)))())
    outputs = draw(st.lists(st.sampled_from([name for name, _ in maps[1:]]), min_size=1))
    return net.build("random", *dict.fromkeys([*outputs, maps[-1][0]]))


def _layers(net: Builder, maps: list[tuple[str, int]], x: str, side: int) -> list[object]:
    channels = net.channels[x]
    alike = [m for m, s in maps if s == side and net.channels[m] == channels]
    level = [m for m, s in maps if s == side]

    def gated() -> tuple[str, int]:
        gate = net.conv(net.op("GlobalAveragePool", x), channels, 1)
        return net.op("Mul", x, net.op("Sigmoid", gate)), side

    return [
        lambda: (net.conv(x, 16), side),
        lambda: (net.conv(x, 8, 1), side),
        lambda: (net.conv(x, channels, groups=channels), side),
        lambda: (net.conv_transpose(x, 8), side * 2),
        lambda: (net.relu(x), side),
        lambda: (net.silu(x), side),
        lambda: (net.op("Add", x, alike[-1]), side),
        lambda: (net.op("Add", alike[0], x), side),
        lambda: (net.concat(x, level[-1]), side),
        lambda: (net.max_pool(x, 3), side),
        lambda: (net.upsample(x), side * 2),
        lambda: (net.upsample(x, "linear"), side * 2),
        lambda: (net.op("AveragePool", x, kernel_shape=[1, 1]), side),
        gated,
    ]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), PROFILES, st.booleans())
def test_random_graphs(model: onnx.ModelProto, profile: str, known: bool) -> None:
    """With and without shapes in the file; the result runs and is close to FP32."""
    if not known:
        del model.graph.value_info[:]
        for node in model.graph.node:
            node.name = ""
    before = model.SerializeToString(deterministic=True)
    try:
        placement = place(model, profile=profile, unsigned=profile == "cpu")
    except ModelError as err:
        assert "has no layer to quantize" in str(err)  # noqa: PT017 - either outcome is right
        return
    feeds = random_feeds(model, np.random.default_rng(0))
    ranges = minmax_ranges(model, placement.tensors, feeds)
    result = insert_qdq(model, placement, ranges)
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(result, full_check=True)
    found = run(result, feeds)
    for name, reference in run(model, feeds).items():
        assert found[name].shape == reference.shape
        assert sqnr_db(reference, found[name]) > 6


def test_long_chains_do_not_recurse() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    for _ in range(2000):
        x = net.op("Identity", x)
    pooled = net.op("AveragePool", x, kernel_shape=[2, 2])
    for _ in range(2000):
        pooled = net.op("Identity", pooled)
    weight = net.weight((32, 32, 1, 1), 32)
    for _ in range(2000):
        weight = net.op("Identity", weight)
    y = net.op("Conv", pooled, weight, kernel_shape=[1, 1])
    net.channels[y] = 32
    model = net.build("chain", net.relu(net.conv(y, 64)))
    placement = place(model, profile="cpu")
    feeds = random_feeds(model, np.random.default_rng(0))
    ranges = minmax_ranges(model, placement.tensors, feeds)
    assert len(placement.int8_nodes) == 3
    result = insert_qdq(model, placement, ranges)
    assert len(result.graph.node) < 4100, "the Identity nodes behind the weight are gone"


def test_empty_graph_and_no_nodes() -> None:
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph([], "empty", [info], [info]))
    with pytest.raises(ModelError, match=r"'empty' has no layer to quantize.*no node at all"):
        place(model)


def test_layers_inside_control_flow_only() -> None:
    """Silero's voice detector: the whole network is in the branches of an If."""
    net = Builder()
    y = net.conv(net.input("x", (1, 16, 8, 8)), 16)
    inside = net.build("voice", y).graph
    branch = helper.make_graph(inside.node, "branch", [], inside.output, inside.initializer)
    node = helper.make_node("If", ["flag"], ["out"], then_branch=branch, else_branch=branch)
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph([node], "voice", [flag, *inside.input], [out]))
    with pytest.raises(ModelError, match=r"2 are inside control flow.*; export the branch") as err:
        place(model)
    assert "(found: If)" in str(err.value)


def test_zero_sized_tensors() -> None:
    net = Builder()
    y = net.linear(net.input("x", (0, 32)), 32, 32)
    model = net.build("zero", y)
    placement = place(model)
    feeds = {"x": np.zeros((0, 32), np.float32)}
    result = insert_qdq(model, placement, minmax_ranges(model, placement.tensors, feeds))
    assert run(result, feeds)[y].shape == (0, 32)


def test_scalars_are_never_quantized() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    total = net.op("ReduceMax", x, keepdims=0)
    model = net.build("scalar", net.op("Div", net.relu(net.conv(x, 64)), total))
    placement = place(model, profile="dla")
    assert total not in {edge.tensor for edge in placement.activations}


def test_weights_listed_among_the_inputs() -> None:
    """Old exporters list initializers as inputs; the int8 graph must not ask callers for them."""
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    model = net.build("old", net.relu(net.conv(x, 64)))
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        model.graph.input.append(info)
    placement = place(model)
    assert len(placement.int8_nodes) == 2
    feeds = random_feeds(model, np.random.default_rng(0))
    result = insert_qdq(model, placement, minmax_ranges(model, placement.tensors, feeds))
    names = {value.name for value in result.graph.input}
    assert names == {"x", "bias_0", "bias_1"}
    run(result, feeds)
