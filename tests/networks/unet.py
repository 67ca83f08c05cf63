"""U-Net: skip connections by Concat, ConvTranspose or bilinear Resize to go up."""

from __future__ import annotations

import onnx

from tests.networks.builder import Builder


def unet(
    *,
    size: int = 32,
    width: int = 16,
    depth: int = 2,
    up: str = "conv_transpose",
    batch: int | str = 1,
    seed: int = 6,
) -> onnx.ModelProto:
    """A mask of one channel, sigmoid at the end; ``up`` is conv_transpose or linear."""
    net = Builder(seed)
    x = _double(net, net.input("image", (batch, 3, size, size)), width)
    skips = []
    for level in range(depth):
        skips.append(x)
        x = _double(net, net.max_pool(x, 2, stride=2), width << level + 1)
    for level in reversed(range(depth)):
        if up == "conv_transpose":
            x = net.conv_transpose(x, width << level)
        else:
            x = net.upsample(net.relu(net.conv(x, width << level, 1)), "linear")
        x = _double(net, net.concat(skips[level], x), width << level)
    return net.build("unet", net.op("Sigmoid", net.conv(x, 1, 1)))


def _double(net: Builder, x: str, filters: int) -> str:
    return net.relu(net.conv(net.relu(net.conv(x, filters)), filters))
