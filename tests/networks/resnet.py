"""ResNet, basic and bottleneck, and the shape of ResNet-50."""

from __future__ import annotations

import onnx

from tests.networks.builder import Builder


def resnet(
    *,
    blocks: tuple[int, ...] = (1, 1, 1),
    width: int = 16,
    bottleneck: bool = False,
    size: int = 32,
    classes: int = 20,
    batch: int | str = 1,
    seed: int = 0,
) -> onnx.ModelProto:
    """Stem, stages that halve the map, average pooling, classifier."""
    net = Builder(seed)
    x = net.relu(net.conv(net.input("image", (batch, 3, size, size)), width, 7, stride=2))
    x = net.max_pool(x, 3, stride=2)
    expansion = 4 if bottleneck else 1
    for stage, depth in enumerate(blocks):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            x = _block(net, x, width << stage, expansion, stride)
    pooled = net.op("Flatten", net.op("GlobalAveragePool", x))
    kind = "bottleneck" if bottleneck else "basic"
    logits = net.gemm(pooled, (width << len(blocks) - 1) * expansion, classes)
    return net.build(f"resnet_{kind}", logits)


def _block(net: Builder, x: str, width: int, expansion: int, stride: int) -> str:
    skip = x
    if stride > 1 or net.channels[x] != width * expansion:
        skip = net.conv(x, width * expansion, 1, stride=stride, gain=1.0)
    if expansion == 1:
        y = net.relu(net.conv(x, width, stride=stride))
        y = net.conv(y, width, gain=0.5)
    else:
        y = net.relu(net.conv(x, width, 1))
        y = net.relu(net.conv(y, width, stride=stride))
        y = net.conv(y, width * expansion, 1, gain=0.5)
    return net.relu(net.op("Add", y, skip))


def resnet50() -> onnx.ModelProto:
    """The shape of ResNet-50 at 224×224, random weights: for latency."""
    return resnet(blocks=(3, 4, 6, 3), width=64, bottleneck=True, size=224, classes=1000, seed=50)
