"""Branches of a Concat that are too far apart for one scale keep scales of their own."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from quantization.placement import Placement, Profile, place
from quantization.placement.apart import LARGEST_RATIO
from quantization.write.insert import insert_qdq, unify_ranges
from tests.networks import Builder, skip_network
from tests.networks.running import run, sqnr_db
from tests.observed import observed_amax, ranges_of


def placed(
    ratio: float, profile: Profile, *, known: bool = True, pooled: bool = False
) -> Placement:
    """With the largest of the skip's own ranges."""
    model = skip_network(ratio, pooled=pooled)
    noise = np.random.default_rng(0).normal(size=(1, 32, 16, 16))
    amax = observed_amax(model, {"x": noise.astype(np.float32)})
    first = place(model, profile=profile)
    return (
        place(model, profile=profile, amax={n: amax[n] for n in first.tensors}) if known else first
    )


@pytest.mark.parametrize("profile", ["tensorrt", "cpu"])
def test_near_branches_take_one_scale(profile: Profile) -> None:
    placement = placed(2.0, profile)
    assert any({"Relu_1", "Relu_3"} & set(group) for group in placement.shared)
    assert placement == placed(2.0, profile, known=False)


@pytest.mark.parametrize("profile", ["tensorrt", "cpu"])
@pytest.mark.parametrize("pooled", [False, True])
def test_far_branches_keep_their_own(profile: Profile, pooled: bool) -> None:
    placement = placed(1000.0, profile, pooled=pooled)
    assert placement.shared == ()
    read = {(edge.node, edge.tensor, edge.observed) for edge in placement.activations}
    below = "MaxPool_0" if pooled and profile == "tensorrt" else "Concat_0"
    reader = "n_MaxPool_0" if pooled and profile == "cpu" else "n_Conv_4"
    assert (reader, below, below) in read
    assert ("n_Conv_5", "Relu_1", "Relu_1") in read
    assert not any(node == "n_Concat_0" for node, _, _ in read)


def test_dla_shares_whatever_the_ranges() -> None:
    assert placed(1000.0, "dla") == placed(1000.0, "dla", known=False)


@pytest.mark.parametrize("profile", ["tensorrt", "cpu"])
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("ratio", [LARGEST_RATIO * 2, 1e6])
def test_the_smaller_branch_survives(
    profile: Profile, pooled: bool, ratio: float, rng: np.random.Generator
) -> None:
    model = skip_network(ratio, pooled=pooled)
    feeds = {"x": rng.normal(size=(1, 32, 16, 16)).astype(np.float32)}
    amax = observed_amax(model, feeds)
    first = place(model, profile=profile)
    again = place(model, profile=profile, amax={name: amax[name] for name in first.tensors})
    ranges = ranges_of(model, {name: amax[name] for name in first.tensors})
    exact = run(model, feeds)
    int8 = {
        way: run(insert_qdq(model, placement, ranges), feeds, optimize=False)
        for way, placement in (("shared", first), ("apart", again))
    }
    joint, alone = (output.name for output in model.graph.output)
    assert sqnr_db(exact[joint], int8["apart"][joint]) > 20
    assert sqnr_db(exact[alone], int8["apart"][alone]) > 25
    assert sqnr_db(exact[alone], int8["shared"][alone]) < 25


def test_what_is_joined_has_the_largest_range() -> None:
    model = skip_network(1000.0)
    amax = {"Relu_0": 1.0, "Relu_1": 2.0, "Relu_2": 3.0, "Relu_3": 900.0, "Relu_4": 5.0}
    first = place(model, profile="cpu")
    amax |= {name: 1.0 for name in first.tensors if name not in amax}
    ranges = ranges_of(model, amax)
    again = place(model, profile="cpu", amax=amax)
    unified = unify_ranges(ranges, again)
    assert unified["Concat_0"].amax == 900.0
    assert unified["Relu_1"].amax == 2.0
    known = ranges.replace({"Concat_0": dataclasses.replace(ranges["Relu_3"], amax=800.0)})
    assert unify_ranges(known, again)["Concat_0"].amax == 800.0


def test_a_chain_of_near_steps_is_parted_where_its_ends_are_far() -> None:
    """1, 3, 9, 27: no Concat joins what is more than 4 times apart, all together do."""
    net = Builder()
    joined = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    stages = [joined]
    for _ in range(3):
        stages.append(net.relu(net.conv(stages[-1], 32)))
        joined = net.concat(joined, stages[-1])
        net.channels[joined] = 32 * len(stages)
    model = net.build("dense", net.conv(net.relu(net.conv(joined, 32)), 32))
    first = place(model, profile="cpu")
    amax = dict.fromkeys(first.tensors, 1.0)
    amax |= {name: 3.0**power for power, name in enumerate(stages)}
    placement = place(model, profile="cpu", amax=amax)
    assert placement.joined
    read = {edge.observed for edge in placement.activations if "Concat" not in edge.node}
    for group in placement.shared:
        largest = max(amax.get(name, 0.0) for name in group)
        assert all(amax[name] * LARGEST_RATIO >= largest for name in read & set(group) & set(amax))


@pytest.mark.parametrize(("ratio", "parted"), [(8.0, False), (20.0, True)])
def test_inputs_read_through_a_concat_alone_are_parted_later(ratio: float, parted: bool) -> None:
    """One scale for the Concat is right up to a few bits; then it takes a scale a channel."""
    net = Builder()
    joined = net.concat(net.input("a", (1, 8, 8, 8)), net.input("b", (1, 8, 8, 8)))
    net.channels[joined] = 16
    model = net.build("inputs", net.conv(net.relu(net.conv(joined, 32)), 16))
    first = place(model, profile="cpu")
    assert first.shared == (("a", "b"),)
    amax = {**dict.fromkeys(first.tensors, 1.0), "b": ratio}
    placement = place(model, profile="cpu", amax=amax)
    assert placement.joined == ({joined: ("a", "b")} if parted else {})
    assert ("n_Conv_0", joined) in {
        (edge.node, edge.tensor) for edge in placement.activations
    } or not parted


def inception() -> onnx.ModelProto:
    """Stages whose branches are joined, one of them what is pooled of the stage before."""
    net = Builder()
    x, channels = net.relu(net.conv(net.input("x", (1, 16, 8, 8)), 16)), 16
    for _ in range(3):
        pooled = net.op("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        branches = [net.relu(net.conv(x, 16, size)) for size in (1, 3)]
        x, channels = net.concat(pooled, *branches), channels + 32
        net.channels[x] = channels
    return net.build("inception", net.conv(net.relu(net.conv(x, 16)), 8))


@pytest.mark.parametrize("profile", ["tensorrt", "cpu"])
def test_whatever_the_ranges_each_placed_tensor_has_one(
    profile: Profile, rng: np.random.Generator
) -> None:
    """A Concat that is parted changes where Q/DQ pairs around the Concats before it lie."""
    model = inception()
    first = place(model, profile=profile)
    for _ in range(30):
        amax = {name: float(10 ** rng.uniform(-3, 3)) for name in first.tensors}
        placement = place(model, profile=profile, amax=amax)
        ranges = unify_ranges(ranges_of(model, amax), placement)
        for name in placement.tensors:
            assert ranges[name].amax > 0
