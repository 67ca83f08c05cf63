"""MobileNetV2, MobileNetV3 and EfficientNet: inverted residuals, depthwise, squeeze-and-excite."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from tests.networks.builder import Builder


def mobilenet_v2(*, size: int = 32, batch: int | str = 1, seed: int = 2) -> onnx.ModelProto:
    """Linear bottlenecks, ReLU6, residual Adds without activation."""
    net = Builder(seed)
    x = net.relu6(net.conv(net.input("image", (batch, 3, size, size)), 16, stride=2))
    for filters, expand, stride in ((16, 1, 1), (24, 4, 2), (24, 4, 1), (32, 4, 2), (32, 4, 1)):
        x = _inverted_residual(net, x, filters, expand, stride, net.relu6)
    x = net.relu6(net.conv(x, 128, 1))
    pooled = net.op("Flatten", net.op("GlobalAveragePool", x))
    return net.build("mobilenet_v2", net.gemm(pooled, 128, 20))


def mobilenet_v3(*, size: int = 32, batch: int | str = 1, seed: int = 3) -> onnx.ModelProto:
    """HardSwish, and gates with HardSigmoid on some blocks."""
    net = Builder(seed)
    x = net.hard_swish(net.conv(net.input("image", (batch, 3, size, size)), 16, stride=2))
    x = _inverted_residual(net, x, 16, 2, 1, net.relu)
    x = _inverted_residual(net, x, 24, 4, 2, net.relu, gate=_hard_gate)
    x = _inverted_residual(net, x, 24, 4, 1, net.hard_swish, gate=_hard_gate)
    x = _inverted_residual(net, x, 40, 4, 2, net.hard_swish, kernel=5, gate=_hard_gate)
    x = net.hard_swish(net.conv(x, 160, 1))
    x = net.op("GlobalAveragePool", x)
    x = net.hard_swish(net.conv(x, 64, 1))
    return net.build("mobilenet_v3", net.op("Flatten", net.conv(x, 20, 1)))


def efficientnet(*, size: int = 32, batch: int | str = 1, seed: int = 4) -> onnx.ModelProto:
    """SiLU, and a gate with Sigmoid in every block."""
    net = Builder(seed)
    x = net.silu(net.conv(net.input("image", (batch, 3, size, size)), 32, stride=2))
    x = _inverted_residual(net, x, 16, 1, 1, net.silu, gate=_sigmoid_gate)
    x = _inverted_residual(net, x, 24, 6, 2, net.silu, gate=_sigmoid_gate)
    x = _inverted_residual(net, x, 24, 6, 1, net.silu, gate=_sigmoid_gate)
    x = _inverted_residual(net, x, 40, 6, 2, net.silu, kernel=5, gate=_sigmoid_gate)
    x = net.silu(net.conv(x, 128, 1))
    pooled = net.op("Flatten", net.op("GlobalAveragePool", x))
    return net.build("efficientnet", net.gemm(pooled, 128, 20))


def _inverted_residual(
    net: Builder,
    x: str,
    filters: int,
    expand: int,
    stride: int,
    activation: Callable[[str], str],
    *,
    kernel: int = 3,
    gate: Callable[[Builder, str], str] | None = None,
) -> str:
    width = net.channels[x] * expand
    y = activation(net.conv(x, width, 1)) if expand > 1 else x
    y = activation(net.conv(y, width, kernel, stride=stride, groups=width))
    if gate is not None:
        y = net.op("Mul", y, gate(net, y))
    y = net.conv(y, filters, 1, gain=1.0)
    return net.op("Add", y, x) if stride == 1 and net.channels[x] == filters else y


def _squeeze(net: Builder, x: str, activation: Callable[[str], str]) -> str:
    width = net.channels[x]
    pooled = net.op("GlobalAveragePool", x)
    return net.conv(activation(net.conv(pooled, max(8, width // 4), 1)), width, 1)


def _hard_gate(net: Builder, x: str) -> str:
    return net.op("HardSigmoid", _squeeze(net, x, net.relu), alpha=1 / 6, beta=0.5)


def _sigmoid_gate(net: Builder, x: str) -> str:
    return net.op("Sigmoid", _squeeze(net, x, net.silu))
