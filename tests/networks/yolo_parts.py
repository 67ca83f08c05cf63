"""Parts of recent YOLOs that the builder treats in its own way."""

from __future__ import annotations

import onnx

from tests.networks.builder import Builder

__all__ = ["convolved_attention", "pyramid_pooling"]


def pyramid_pooling(*, side: int = 5, channels: int = 128) -> onnx.ModelProto:
    """SPPF: a map and three MaxPools in a chain, joined; convolutions before and behind."""
    net = Builder()
    x = net.silu(net.conv(net.input("x", (1, 2 * channels, side, side)), 2 * channels))
    x = net.silu(net.conv(x, channels, 1))
    parts = [x]
    for _ in range(3):
        parts.append(
            net.op("MaxPool", parts[-1], kernel_shape=[5, 5], pads=[2] * 4, strides=[1, 1])
        )
    y = net.silu(net.conv(net.concat(*parts), 2 * channels, 1))
    return net.build("sppf", net.conv(net.silu(net.conv(y, 32)), 32))


def convolved_attention(
    *, side: int = 5, heads: int = 2, size: int = 32, transposed: bool = True
) -> onnx.ModelProto:
    """Attention over a map, whose Q, K and V convolutions make: ``n_MatMul_0`` and ``_1``.

    With ``transposed`` channels stand before positions, so that the probabilities are the right
    operand of the second product, as in YOLO11.
    """
    net = Builder()
    positions, width = side * side, heads * 2 * size
    x = net.silu(net.conv(net.input("x", (1, width, side, side)), width))
    shape = net.ints(1, heads, size, positions)
    q, k = (net.op("Reshape", net.conv(x, heads * size, 1), shape) for _ in range(2))
    wide = net.ints(1, heads, 2 * size, positions)
    v = net.op("Reshape", net.conv(x, width, 1), wide)
    scores = net.op("MatMul", net.op("Transpose", q, perm=[0, 1, 3, 2]), k)
    probabilities = net.op("Softmax", net.op("Mul", scores, net.scalar(size**-0.5)), axis=-1)
    turn = {"perm": [0, 1, 3, 2]}
    if transposed:
        y = net.op("MatMul", v, net.op("Transpose", probabilities, **turn))
    else:
        mixed = net.op("MatMul", probabilities, net.op("Transpose", v, **turn))
        y = net.op("Transpose", mixed, **turn)
    y = net.op("Reshape", y, net.ints(1, width, side, side))
    net.channels[y] = width
    y = net.silu(net.conv(y, width, 1))
    return net.build("psa", net.conv(net.silu(net.conv(y, width)), width))
