"""Tiny models for engines: a Q/DQ convolution net with one float layer, and its parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Float = NDArray[np.float32]


class _Graph:
    """Nodes and weights while a model grows."""

    def __init__(self, rng: np.random.Generator, *, quantized: bool) -> None:
        self.rng, self.quantized = rng, quantized
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        node = helper.make_node(op, inputs, [output], name=f"{output}_node", **attributes)
        self.nodes.append(node)
        return output

    def weight(self, name: str, *shape: int) -> Float:
        array = (self.rng.standard_normal(shape) * 0.2).astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return array

    def qdq(self, name: str, amax: Float, axis: int | None = None) -> str:
        scale, zero = f"{name}_scale", f"{name}_zero"
        amax = np.asarray(amax, np.float32)
        self.weights.append(numpy_helper.from_array(np.asarray(amax / 127, np.float32), scale))
        self.weights.append(numpy_helper.from_array(np.zeros(amax.shape, np.int8), zero))
        attributes = {} if axis is None else {"axis": axis}
        self.add("QuantizeLinear", [name, scale, zero], f"{name}_q", **attributes)
        return self.add("DequantizeLinear", [f"{name}_q", scale, zero], f"{name}_dq", **attributes)

    def conv(self, source: str, name: str, channels: tuple[int, int], *, quantized: bool) -> str:
        cin, cout = channels
        array = self.weight(f"{name}_w", cout, cin, 3, 3)
        operands = [source, f"{name}_w"]
        if quantized and self.quantized:
            # Codes up to 64: no pair of them saturates on a CPU without VNNI (graphs.pairs).
            amax = 2 * np.abs(array).max(axis=(1, 2, 3))
            operands = [self.qdq(source, np.float32(4)), self.qdq(f"{name}_w", amax, 0)]
        self.weight(f"{name}_b", cout)
        return self.add("Conv", [*operands, f"{name}_b"], name, pads=[1] * 4)


def convnet(
    rng: np.random.Generator,
    *,
    quantized: bool = True,
    batch: int | str = "batch",
    size: int = 8,
    float_tail: bool = True,
) -> onnx.ModelProto:
    """input (batch, 3, size, size) → conv → ReLU → conv → [float conv] → pool → output (batch, 16).

    Nodes are named after their output with ``_node``: ``conv1_node``, ``conv2_node``,
    ``tail_node``.
    """
    graph = _Graph(rng, quantized=quantized)
    graph.conv("input", "conv1", (3, 16), quantized=True)
    graph.add("Relu", ["conv1"], "relu1")
    last = graph.conv("relu1", "conv2", (16, 16), quantized=True)
    if float_tail:
        last = graph.conv(last, "tail", (16, 16), quantized=False)
    graph.add("GlobalAveragePool", [last], "pooled")
    graph.add("Flatten", ["pooled"], "output")
    return _model(
        graph,
        {"input": (TensorProto.FLOAT, [batch, 3, size, size])},
        {"output": (TensorProto.FLOAT, [batch, 16])},
    )


def scaled_sum(*, batch: int | str = "batch") -> onnx.ModelProto:
    """left (batch, 4) float32 and right (batch, 4) int64 → output = 2·left + right."""
    nodes = [
        helper.make_node("Cast", ["right"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["left", "two"], ["double"]),
        helper.make_node("Add", ["double", "cast"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sum",
        [
            helper.make_tensor_value_info("left", TensorProto.FLOAT, [batch, 4]),
            helper.make_tensor_value_info("right", TensorProto.INT64, [batch, 4]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(np.float32(2), "two")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def save(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    onnx.save(model, path)
    return path


def _model(
    graph: _Graph,
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, tuple[int, list[int | str]]],
) -> onnx.ModelProto:
    made = helper.make_graph(
        graph.nodes,
        "tiny",
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in outputs.items()],
        graph.weights,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model
