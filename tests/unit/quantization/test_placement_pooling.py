"""MaxPools in a chain: Q/DQ in front of each, with one range."""

from __future__ import annotations

import onnx
import pytest

from quantization.placement import place
from tests.networks import Builder, pyramid_pooling


def pools_of(model: onnx.ModelProto) -> set[str]:
    placement = place(model)
    return {edge.node for edge in placement.activations if "MaxPool" in edge.node}


def test_a_chain_that_is_joined_reads_int8() -> None:
    model = pyramid_pooling()
    assert pools_of(model) == {f"n_MaxPool_{n}" for n in range(3)}
    placement = place(model)
    read = {edge.observed for edge in placement.activations if "MaxPool" in edge.node}
    joined = {edge.observed for edge in placement.activations if edge.node == "n_Conv_2"}
    assert read == joined
    assert len(read) == 1
    cpu = {edge.node for edge in place(model, profile="cpu").activations}
    assert "n_MaxPool_1" not in cpu


@pytest.mark.parametrize("kind", ["single", "float reader"])
def test_other_pools_have_no_pair_of_their_own(kind: str) -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 16, 16)), 32))
    pooled = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    if kind == "float reader":
        pooled = net.op("MaxPool", pooled, kernel_shape=[2, 2], strides=[2, 2])
    y = net.conv(pooled, 32)
    outputs = [net.conv(net.relu(y), 32)]
    if kind == "float reader":
        outputs.append(net.op("Exp", pooled))
    model = net.build("pools", *outputs)
    assert pools_of(model) == set()
