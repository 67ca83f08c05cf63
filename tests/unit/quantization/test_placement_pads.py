"""Where the pair of a padded tensor goes on the cpu target."""

from __future__ import annotations

import onnx
import pytest

from quantization.placement import place
from tests.networks import Builder


def padded(activation: str, *, joined: bool) -> onnx.ModelProto:
    """Pads that a Concat joins, or one that a convolution reads alone."""
    net = Builder()
    x = net.op(activation, net.conv(net.input("x", (1, 32, 8, 8)), 32))
    x = net.op("Pad", x, net.ints(0, 0, 0, 0, 0, 0, 0, 3))
    net.channels[x] = 32
    if joined:
        x = net.concat(x, x)
        net.channels[x] = 64
    return net.build("padded", net.relu(net.conv(x, 64)))


@pytest.mark.parametrize(
    ("activation", "joined", "pair_of"),
    [
        ("Relu", False, "n_Pad_0"),
        ("Tanh", False, "n_Pad_0"),
        ("Relu", True, "n_Pad_0"),
        ("Tanh", True, "n_Concat_0"),
    ],
)
def test_cpu_keeps_the_pair_of_signed_values_behind_a_pad(
    activation: str, joined: bool, pair_of: str
) -> None:
    """OpenVINO's DQ with a zero point does not pass a Pad that no convolution takes in."""
    placement = place(padded(activation, joined=joined), profile="cpu")
    assert "n_Conv_1" in placement.int8_nodes
    readers = {node for node, _ in {(edge.node, edge.index) for edge in placement.activations}} - {
        "n_Conv_0"
    }
    assert readers == {pair_of}
