"""A residual Add: which of its inputs is the skip, and which sums are none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from quantization.placement import Placement, place
from tests.networks import Builder


def edges_of(placement: Placement) -> set[tuple[str, int]]:
    return {(edge.node, edge.index) for edge in placement.activations}


def residual(*, shortcut: bool, conv_first: bool = True, deep: bool = True) -> onnx.ModelProto:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))  # Conv_0
    skip = net.conv(x, 32, 1) if shortcut else x  # Conv_1 with a shortcut
    y = net.relu(net.conv(x, 32))
    y = net.conv(y, 32) if deep else y
    total = net.relu(net.op("Add", *((y, skip) if conv_first else (skip, y))))
    return net.build("residual", net.relu(net.conv(total, 64)))


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("conv_first", [False, True])
def test_residual_add_reads_the_skip_only(shortcut: bool, conv_first: bool) -> None:
    placement = place(residual(shortcut=shortcut, conv_first=conv_first))
    skip = 1 if conv_first else 0
    added = {edge for edge in placement.activations if edge.node == "n_Add_0"}
    assert {edge.index for edge in added} == {skip}
    assert {edge.tensor for edge in added} == {"Conv_1" if shortcut else "Relu_0"}


def flow(way: str, constant: tuple[int, ...]) -> onnx.ModelProto:
    """Positions that two convolutions move: what they are less ``constant`` is read again."""
    net = Builder()
    x = net.relu(net.conv(net.input("x", ("N", 32, 8, 8)), 32))
    where = net.constant(net.rng.uniform(0, 8, constant).astype(np.float32))
    if way == "repeated":  # for each sample of a free batch
        batch = net.op("Slice", net.op("Shape", x), net.ints(0), net.ints(1))
        where = net.op("Expand", where, net.op("Concat", batch, net.ints(1, 1, 1), axis=0))
    moved = net.op("Add", where, net.conv(x, 32))
    moved = net.op("Add", moved, net.conv(net.relu(net.conv(x, 32)), 32))
    change = net.op("Add" if way == "kept" else "Sub", moved, where)
    weight = net.weight((16, 32, 3, 3), 288)
    return net.build("flow", net.relu(net.op("Conv", change, weight)))


@pytest.mark.parametrize("profile", ["tensorrt", "cpu"])
@pytest.mark.parametrize("way", ["constant", "repeated"])
def test_positions_that_are_taken_off_again_are_no_skips(way: str, profile: str) -> None:
    placement = place(flow(way, (1, 32, 8, 8)), profile=profile)
    assert not [edge for edge in placement.activations if edge.node.startswith("n_Add")]


@pytest.mark.parametrize(
    ("way", "constant"), [("constant", (1, 32, 1, 1)), ("kept", (1, 32, 8, 8))]
)
def test_a_sum_less_a_number_for_each_channel_has_a_skip(
    way: str, constant: tuple[int, ...]
) -> None:
    placement = place(flow(way, constant))
    assert ("n_Add_1", 0) in edges_of(placement)
    assert ("n_Add_0", 0) not in edges_of(placement), "a constant is no skip"


def test_residual_add_of_equal_paths_keeps_the_second_as_the_convolutions() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    total = net.op("Add", net.conv(x, 32, 1), net.conv(x, 32, 1))
    placement = place(net.build("twins", net.relu(net.conv(total, 64))))
    assert ("n_Add_0", 0) in edges_of(placement)
    assert ("n_Add_0", 1) not in edges_of(placement)


@pytest.mark.parametrize("kind", ["bias", "input", "same convolution", "float convolution"])
def test_other_adds_are_not_residual(kind: str) -> None:
    net = Builder()
    x = net.input("x", (1, 32, 8, 8))
    y = net.conv(x, 12 if kind == "float convolution" else 32, groups=1)
    if kind == "bias":
        y = net.op("Add", y, net.constant(np.ones((32, 1, 1), np.float32)))
    elif kind == "input":
        y = net.op("Add", y, x)
    elif kind == "same convolution":
        y = net.op("Add", y, net.relu(y))
    else:
        y = net.relu(net.conv(net.relu(y), 12))
        y = net.op("Add", net.conv(y, 12), y)
    placement = place(net.build("add", net.relu(net.conv(net.relu(y), 64))))
    assert not any(node == "n_Add_0" for node, _ in edges_of(placement))


def test_cpu_adds_read_both_sides() -> None:
    placement = place(residual(shortcut=True), profile="cpu")
    assert {("n_Add_0", 0), ("n_Add_0", 1)} <= edges_of(placement)
