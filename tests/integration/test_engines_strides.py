"""Strides of 1x1 convolutions that a CPU without VNNI computes wrong are a step of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from engines.openvino.library import core, openvino, settings
from engines.openvino.rewrites.strided_points import separate_strides
from tests.integration.test_engines_unsigned import fused
from tests.networks import Builder
from tests.networks.running import random_feeds, run, sqnr_db

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

Dim = int | str


def shortcut(channels: int, batch: Dim = "N", *, kernel: int = 1, pad: int = 0) -> onnx.ModelProto:
    """RegNet's: a convolution of one point with strides, beside the block."""
    net = Builder(channels)
    x = net.relu(net.conv(net.input("x", (batch, 8, 15, 15)), channels, 3))
    weight = net.weight((24, channels, kernel, kernel), channels)
    y = net.op("Conv", x, weight, net.bias(24), strides=[2, 2], pads=[pad] * 4)
    return net.build("shortcut", y)


@pytest.mark.parametrize("channels", [5, 8, 24, 40])
def test_a_pool_takes_the_strides(channels: int, rng: np.random.Generator) -> None:
    model = shortcut(channels)
    feeds = random_feeds(model, rng, dynamic=4)
    int8, network = fused(model, feeds)
    assert separate_strides(openvino(), network) == 1
    assert separate_strides(openvino(), network) == 0
    strides = [
        list(op.get_attributes()["strides"])
        for op in network.get_ordered_ops()
        if op.get_type_name() in ("MaxPool", "Convolution")
    ]
    assert strides == [[1, 1], [2, 2], [1, 1]]
    compiled = core().compile_model(network, "CPU", settings(1, "f32"))
    (found,), (wanted,) = compiled(feeds).values(), run(int8, feeds, optimize=False).values()
    assert sqnr_db(wanted, found) > 40, "a code may differ where a sum is rounded otherwise"


@pytest.mark.parametrize(
    "given",
    [
        {"channels": 16},
        {"channels": 12},
        {"channels": 24, "kernel": 3},
        {"channels": 24, "pad": 1},
    ],
    ids=str,
)
def test_others_keep_theirs(given: dict[str, Any], rng: np.random.Generator) -> None:
    model = shortcut(**given)
    _, network = fused(model, random_feeds(model, rng, dynamic=2))
    assert separate_strides(openvino(), network) == 0


def test_a_network_in_float_keeps_its_strides() -> None:
    network = core().read_model(shortcut(24).SerializeToString())
    assert separate_strides(openvino(), network) == 0
