"""A YOLO-style detector: focus, CSP blocks, SPP, feature pyramid with Resize, decoupled heads."""

from __future__ import annotations

import onnx

from tests.networks.builder import Builder


def detector(
    *, size: int = 64, width: int = 16, classes: int = 4, batch: int | str = 1, seed: int = 5
) -> onnx.ModelProto:
    """Two scales; output (N, boxes, 5 + classes), sigmoid on objectness and classes."""
    net = Builder(seed)
    x = _focus(net, net.input("images", (batch, 3, size, size)))
    x = net.silu(net.conv(x, width))
    x = _csp(net, net.silu(net.conv(x, width * 2, stride=2)))
    fine = _csp(net, net.silu(net.conv(x, width * 4, stride=2)))
    coarse = _csp(net, _spp(net, net.silu(net.conv(fine, width * 8, stride=2))))
    lateral = net.silu(net.conv(coarse, width * 4, 1))
    joined = net.concat(net.upsample(lateral), fine)
    fine = _csp(net, net.silu(net.conv(joined, width * 4, 1)))
    down = net.silu(net.conv(fine, width * 4, stride=2))
    coarse = _csp(net, net.silu(net.conv(net.concat(down, lateral), width * 4, 1)))
    heads = [_head(net, level, classes) for level in (fine, coarse)]
    return net.build("detector", net.op("Transpose", net.concat(*heads, axis=2), perm=[0, 2, 1]))


def _focus(net: Builder, x: str) -> str:
    """Space to depth by four strided slices, as YOLOv5 and YOLOX export it."""
    parts = []
    for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)):
        starts, ends = net.ints(row, column), net.ints(2**31 - 1, 2**31 - 1)
        part = net.op("Slice", x, starts, ends, net.ints(2, 3), net.ints(2, 2))
        net.channels[part] = 3
        parts.append(part)
    return net.concat(*parts)


def _csp(net: Builder, x: str) -> str:
    """Two branches joined by a Concat; one has a residual block."""
    half = net.channels[x] // 2
    first = net.silu(net.conv(x, half, 1))
    second = net.silu(net.conv(x, half, 1))
    y = net.silu(net.conv(net.silu(net.conv(first, half, 1)), half))
    return net.silu(net.conv(net.concat(net.op("Add", y, first), second), half * 2, 1))


def _spp(net: Builder, x: str) -> str:
    y = net.silu(net.conv(x, net.channels[x] // 2, 1))
    pooled = [net.max_pool(y, kernel) for kernel in (5, 9, 13)]
    return net.silu(net.conv(net.concat(y, *pooled), net.channels[x], 1))


def _head(net: Builder, x: str, classes: int) -> str:
    """Box, objectness and classes from two branches, flattened to (N, 5 + classes, boxes)."""
    stem = net.silu(net.conv(x, 32, 1))
    branches = [net.silu(net.conv(stem, 32)) for _ in range(2)]
    box = net.conv(branches[0], 4, 1)
    objectness = net.op("Sigmoid", net.conv(branches[0], 1, 1))
    scores = net.op("Sigmoid", net.conv(branches[1], classes, 1))
    return net.op("Reshape", net.concat(box, objectness, scores), net.ints(0, 5 + classes, -1))
