"""A network of ResNet-50's shape with random weights: cost depends on the shape only.

Convolutions and residual blocks as in the v1.5 of the paper (arXiv 1512.03385, stride in the
3×3 convolution), BatchNorm folded, weights scaled so that activations keep their size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["build_resnet50", "write_images"]

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


class _Builder:
    """Collects nodes and weights; every call returns the name of its output."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def weight(self, *shape: int, fan_in: int, gain: float = 2.0) -> str:
        name = f"weight_{len(self.weights)}"
        array = self._rng.standard_normal(shape, dtype=np.float32) * np.sqrt(gain / fan_in)
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(
        self, x: str, channels: tuple[int, int], kernel: int, stride: int = 1, gain: float = 2.0
    ) -> str:
        (came, goes), pad = channels, kernel // 2
        fan_in = came * kernel * kernel
        weight = self.weight(goes, came, kernel, kernel, fan_in=fan_in, gain=gain)
        bias = self.weight(goes, fan_in=100)
        return self.node(
            "Conv", x, weight, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4
        )

    def block(self, x: str, came: int, width: int, stride: int) -> str:
        goes = 4 * width
        y = self.node("Relu", self.conv(x, (came, width), 1))
        y = self.node("Relu", self.conv(y, (width, width), 3, stride))
        y = self.conv(y, (width, goes), 1, gain=0.5)
        skip = self.conv(x, (came, goes), 1, stride, gain=1.0) if came != goes else x
        return self.node("Relu", self.node("Add", y, skip))


def build_resnet50(*, side: int = 224, seed: int = 0) -> onnx.ModelProto:
    """The network, with input "images" (N, 3, side, side) and output "scores" (N, 1000)."""
    net = _Builder(seed)
    x = net.node("Relu", net.conv("images", (3, 64), 7, 2))
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    came = 64
    for width, blocks, stride in _STAGES:
        for index in range(blocks):
            x = net.block(x, came, width, stride if index == 0 else 1)
            came = 4 * width
    x = net.node("Flatten", net.node("GlobalAveragePool", x))
    x = net.node("Gemm", x, net.weight(came, 1000, fan_in=came), net.weight(1000, fan_in=100))
    net.nodes[-1].output[0] = "scores"
    graph = helper.make_graph(
        net.nodes,
        "resnet50_shape",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, side, side])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 1000])],
        net.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def write_images(path: Path, count: int, *, side: int = 224, seed: int = 0) -> None:
    """``count`` random images as an .npy file (count, 3, side, side) of float32."""
    array = np.lib.format.open_memmap(path, "w+", np.float32, (count, 3, side, side))
    rng = np.random.default_rng(seed)
    for row in range(count):
        array[row] = rng.standard_normal((3, side, side), dtype=np.float32)
    array.flush()
