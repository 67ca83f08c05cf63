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


def skip_network(ratio: float, *, pooled: bool = False) -> onnx.ModelProto:
    """A U-Net's level: ``Relu_1`` is read by a Conv and joined with a branch ``ratio`` times it."""
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 16, 16)), 32))
    skip = net.relu(net.conv(x, 32))
    large = net.relu(net.conv(net.relu(net.conv(skip, 32)), 32, gain=2.0 * ratio**2))
    joined = net.concat(large, skip)
    net.channels[joined] = 64
    if pooled:
        joined = net.op("MaxPool", joined, kernel_shape=[2, 2], strides=[2, 2])
    joint = net.relu(net.conv(joined, 32))
    alone = net.relu(net.conv(skip, 32))
    return net.build("skip", net.conv(joint, 32), net.conv(alone, 32))


def _double(net: Builder, x: str, filters: int) -> str:
    return net.relu(net.conv(net.relu(net.conv(x, filters)), filters))
