"""Which edges get Q/DQ, and which tensors share a scale: each rule where it acts and where not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantization.placement import Placement, place
from tests.networks import NETWORKS, Builder


def edges_of(placement: Placement) -> set[tuple[str, int]]:
    return {(edge.node, edge.index) for edge in placement.activations}


def test_inputs_of_weighted_layers_and_nothing_else() -> None:
    net = Builder()
    x = net.silu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    x = net.hard_swish(net.conv(x, 32))
    model = net.build("convs", net.conv(net.relu(net.conv(x, 32)), 32))
    placement = place(model)
    assert edges_of(placement) == {(f"n_Conv_{i}", 0) for i in range(4)}
    assert [weight.index for weight in placement.weights] == [1] * 4, "bias stays float"


def test_gelu_and_layer_norm_are_crossed_not_quantized() -> None:
    net = Builder()
    x = net.layer_norm(net.input("x", (2, 32, 64)), 64)
    x = net.gelu(net.linear(x, 64, 64))
    placement = place(net.build("mlp", net.layer_norm(net.linear(x, 64, 64), 64)))
    assert {e.tensor for e in placement.activations} == {"LayerNormalization_0", "Mul_1"}


def pooled(after: str) -> onnx.ModelProto:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    x = net.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = net.relu(net.conv(x, 64) if after == "conv" else net.op("Sigmoid", x))
    return net.build("pool", y)


def test_average_pool_between_int8_layers_reads_int8() -> None:
    assert ("n_AveragePool_0", 0) in edges_of(place(pooled("conv")))
    assert ("n_AveragePool_0", 0) not in edges_of(place(pooled("sigmoid")))


def test_max_pool_has_no_pair_of_its_own_and_one_range() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    pool = net.max_pool(x, 2, stride=2)
    model = net.build("pool", net.relu(net.conv(pool, 64)), net.relu(net.conv(x, 64)))
    placement = place(model)
    assert edges_of(placement) == {("n_Conv_0", 0), ("n_Conv_1", 0), ("n_Conv_2", 0)}
    assert placement.tensors == ("Relu_0", "x"), "observed once, above the pooling"
    cpu = place(model, profile="cpu")
    assert ("n_MaxPool_0", 0) in edges_of(cpu)
    assert ("n_Conv_1", 0) not in edges_of(cpu)
    assert "n_Conv_1" in cpu.int8_nodes


def test_cpu_keeps_the_pair_behind_ops_that_others_read() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    pool = net.max_pool(x, 2, stride=2)
    model = net.build("pool", net.relu(net.conv(pool, 64)), net.op("Sigmoid", pool), pool)
    assert ("n_Conv_1", 0) in edges_of(place(model, profile="cpu"))
    excluded = place(pool_only(), profile="cpu", exclude=["MaxPool"])
    assert ("n_Conv_1", 0) in edges_of(excluded)


def pool_only() -> onnx.ModelProto:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    return net.build("pool", net.relu(net.conv(net.max_pool(x, 2, stride=2), 64)))


def test_padding_with_a_value_ends_the_shared_range() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    pads = net.ints(0, 0, 1, 1, 0, 0, 1, 1)
    zero, grey = net.op("Pad", x, pads), net.op("Pad", x, pads, net.scalar(114.0))
    model = net.build("pad", net.relu(net.conv(zero, 64)), net.relu(net.conv(grey, 64)))
    assert place(model).tensors == ("Pad_1", "Relu_0", "x")


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_between_int8_layers(mode: str) -> None:
    net = Builder()
    x = net.silu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    placement = place(net.build("up", net.relu(net.conv(net.upsample(x, mode), 64))))
    assert (("n_Resize_0", 0) in edges_of(placement)) == (mode != "cubic")
    assert placement.shared == ((("Mul_0", "Resize_0"),) if mode == "linear" else ())
    assert ("Resize_0" in placement.tensors) == (mode != "nearest")


def test_resize_before_a_float_layer_stays_float() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    placement = place(net.build("up", net.op("Sigmoid", net.upsample(x))))
    assert edges_of(placement) == {("n_Conv_0", 0)}


def test_layer_norm_behind_a_convolution_reads_int8() -> None:
    net = Builder()
    x = net.conv(net.input("x", (1, 32, 8, 8)), 32)
    norm = net.layer_norm(net.op("Transpose", x, perm=[0, 2, 3, 1]), 32)
    behind_sum = net.layer_norm(net.op("Add", norm, norm), 32)
    placement = place(net.build("norm", behind_sum))
    assert ("n_LayerNormalization_0", 0) in edges_of(placement)
    assert ("n_LayerNormalization_1", 0) not in edges_of(placement)


def joined() -> tuple[Builder, str]:
    """Two branches, one also read by a Conv of its own, joined through a MaxPool."""
    net = Builder()
    x = net.input("x", (1, 32, 8, 8))
    a, b = net.silu(net.conv(x, 32)), net.silu(net.conv(x, 32))
    joint = net.concat(a, net.max_pool(b, 3))
    return net, net.op("Add", net.relu(net.conv(joint, 64)), net.relu(net.conv(b, 64)))


def test_concat_shares_one_scale_with_what_else_reads_its_inputs() -> None:
    net, out = joined()
    placement = place(net.build("join", net.relu(net.conv(out, 64))))
    assert placement.shared == (("Concat_0", "Mul_1"),), "Mul_0 is read by nothing else"
    assert not any(node.startswith("n_Concat") for node, _ in edges_of(placement))


def test_cpu_quantizes_before_the_concat() -> None:
    net, out = joined()
    placement = place(net.build("join", net.relu(net.conv(out, 64))), profile="cpu")
    assert placement.shared == (("Mul_0", "Mul_1"),)
    assert {("n_Concat_0", 0), ("n_MaxPool_0", 0)} <= edges_of(placement)


@pytest.mark.parametrize("ending", ["Relu", "Tanh"])
def test_tensors_that_share_a_scale_are_unsigned_together(ending: str) -> None:
    net = Builder()
    x = net.input("x", (1, 32, 8, 8))
    joint = net.concat(net.relu(net.conv(x, 32)), net.op(ending, net.conv(x, 32)))
    last = net.relu(net.conv(joint, 32))
    model = net.build("two", net.conv(last, 32))
    unsigned = place(model, profile="cpu", unsigned=True).unsigned
    together = ("Relu_0", "Relu_1") if ending == "Relu" else ()
    assert unsigned == tuple(sorted((*together, last)))
    assert place(model, profile="cpu").unsigned == ()


def test_concat_with_a_constant_is_observed_itself() -> None:
    net = Builder()
    x = net.layer_norm(net.input("x", (1, 32, 64)), 64)
    token = net.constant(100 * np.ones((1, 1, 64), np.float32))
    placement = place(net.build("token", net.linear(net.concat(token, x), 64, 64)))
    assert placement.tensors == ("Concat_0",)
    cpu = place(net.build("token", net.linear(net.concat(token, x), 64, 64)), profile="cpu")
    assert not any(node.startswith("n_Concat") for node, _ in edges_of(cpu))


def test_split_takes_the_range_above() -> None:
    net = Builder()
    x = net.linear(net.input("x", (2, 32, 64)), 64, 96)
    parts = net.op("Split", x, outputs=3, axis=-1, num_outputs=3) if net.opset >= 18 else ""
    parts = parts or net.op("Split", x, outputs=3, axis=-1)
    turned = net.op("Reshape", f"{parts}.1", net.ints(64, 32))
    placement = place(net.build("split", net.linear(parts, 32, 32), net.linear(turned, 32, 32)))
    read = {(e.node, e.tensor): e.observed for e in placement.activations}
    assert read["n_MatMul_1", "Split_0"] == read["n_MatMul_2", "Reshape_0"] == "Add_0"


def test_graph_outputs_are_not_quantized() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    y = net.relu(net.conv(x, 32))
    placement = place(net.build("outputs", x, y))
    assert edges_of(placement) == {("n_Conv_0", 0), ("n_Conv_1", 0)}


def test_dla_gives_every_float_tensor_a_range() -> None:
    model = NETWORKS["resnet_basic"]()
    placement = place(model, profile="dla")
    tensors = {name for node in model.graph.node for name in node.output}
    assert set(placement.tensors) == tensors | {"image"}
    groups = {name: group for group in placement.shared for name in group}
    assert "MaxPool_0" in groups["Relu_0"], "pooling keeps the range"
    add = next(node for node in model.graph.node if node.op_type == "Add")
    assert groups[add.input[0]] == groups[add.input[1]]


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("profile", ["tensorrt", "cpu", "dla"])
def test_every_network(name: str, profile: str) -> None:
    model = NETWORKS[name]()
    before = model.SerializeToString(deterministic=True)
    placement = place(model, profile=profile)
    assert model.SerializeToString(deterministic=True) == before
    assert set(placement.int8_nodes).isdisjoint(f.node for f in placement.floating)
    outputs = {output.name for output in model.graph.output}
    assert outputs.isdisjoint(edge.tensor for edge in placement.activations) or profile == "dla"
    recurrent = {"LSTM", "GRU", "RNN"}.intersection(node.op_type for node in model.graph.node)
    assert recurrent or placement.int8_mac_share(model) >= 0.95
    in_groups = [name for group in placement.shared for name in group]
    assert len(in_groups) == len(set(in_groups)), "a tensor is in one group"
    assert set(in_groups) <= set(placement.tensors) | set(placement.fixed)


@settings(deadline=None, max_examples=25)
@given(st.randoms(use_true_random=False), st.sampled_from(["tensorrt", "cpu", "dla"]))
def test_placement_does_not_depend_on_names(random: object, profile: str) -> None:
    """Renaming every node and tensor renames the placement and changes nothing else."""
    net, out = joined()
    model = net.build("join", net.relu(net.conv(out, 64)))
    names = sorted({n for node in model.graph.node for n in (node.name, *node.input, *node.output)})
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    mapping = dict(zip(names, (f"t{i}" for i in range(len(names))), strict=True))
    mapping = {old: mapping[new] for old, new in zip(names, shuffled, strict=True)}
    placement, other = (
        place(model, profile=profile),
        place(renamed(model, mapping), profile=profile),
    )
    expected = {(mapping[e.node], e.index, mapping[e.observed]) for e in placement.activations}
    assert {(e.node, e.index, e.observed) for e in other.activations} == expected
    groups = {frozenset(mapping[name] for name in group) for group in placement.shared}
    assert {frozenset(group) for group in other.shared} == groups


def renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.name = names[node.name]
        node.input[:] = [names[name] if name else "" for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    graph = copy.graph
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names[value.name]
    return copy
