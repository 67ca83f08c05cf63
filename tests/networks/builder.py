"""A small writer of ONNX graphs: one call per layer, weights from a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str]
_INDEX_OPS = frozenset({"ArgMax", "NonMaxSuppression", "Shape"})  # int64


class Builder:
    """Collects nodes and weights; every method returns the name of the tensor it made.

    Weights are He-scaled, with a spread between channels as trained ones have, so that
    activations neither die nor explode.
    """

    def __init__(self, seed: int = 0, opset: int = 17) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.channels: dict[str, int] = {}
        self._counts: dict[str, int] = {}

    def input(self, name: str, shape: Dims, dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        if len(shape) > 1 and isinstance(shape[1], int):
            self.channels[name] = shape[1]
        return name

    def constant(self, values: np.ndarray, stem: str = "const") -> str:
        name = self._name(stem)
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64), "ints")

    def scalar(self, value: float) -> str:
        return self.constant(np.float32(value), "scalar")

    def weight(self, shape: Sequence[int], fan_in: int, axis: int = 0, gain: float = 2.0) -> str:
        values = self.rng.standard_normal(shape) * np.sqrt(gain / fan_in)
        spread = np.exp(0.4 * self.rng.standard_normal(shape[axis]))
        spread /= np.sqrt((spread**2).mean())
        values *= spread.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return self.constant(values.astype(np.float32), "weight")

    def bias(self, size: int, scale: float = 0.1) -> str:
        return self.constant((scale * self.rng.standard_normal(size)).astype(np.float32), "bias")

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        """One node; with several outputs they are ``name``, ``name.1``, ..."""
        stem = self._name(op_type)
        names = [stem, *(f"{stem}.{i}" for i in range(1, outputs))]
        self.nodes.append(
            helper.make_node(op_type, list(inputs), names, name=f"n_{stem}", **attributes)
        )
        if inputs and inputs[0] in self.channels:
            for name in names:
                self.channels[name] = self.channels[inputs[0]]
        return stem

    def conv(
        self,
        x: str,
        filters: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        gain: float = 2.0,
        bias: bool = True,
    ) -> str:
        """Convolution with "same" padding and a bias, as BatchNorm folding leaves it."""
        depth = self.channels[x] // groups
        inputs = [x, self.weight((filters, depth, kernel, kernel), depth * kernel**2, 0, gain)]
        inputs += [self.bias(filters)] if bias else []
        pads, sides = [(kernel - 1) // 2] * 4, [kernel, kernel]
        out = self.op(
            "Conv", *inputs, kernel_shape=sides, pads=pads, strides=[stride] * 2, group=groups
        )
        self.channels[out] = filters
        return out

    def conv_transpose(self, x: str, filters: int, *, groups: int = 1) -> str:
        """2×2 transposed convolution of stride 2."""
        depth = self.channels[x]
        weight = self.weight((depth, filters // groups, 2, 2), depth // groups, 1)
        attributes = {"kernel_shape": [2, 2], "strides": [2, 2], "group": groups}
        out = self.op("ConvTranspose", x, weight, self.bias(filters), **attributes)
        self.channels[out] = filters
        return out

    def linear(self, x: str, inputs: int, outputs: int, *, gain: float = 1.0) -> str:
        """MatMul with a constant and a bias Add, as transformers export it."""
        product = self.op("MatMul", x, self.weight((inputs, outputs), inputs, 1, gain))
        return self.op("Add", product, self.bias(outputs))

    def gemm(self, x: str, inputs: int, outputs: int) -> str:
        """Gemm with transB=1, as PyTorch exports Linear."""
        weight = self.weight((outputs, inputs), inputs, 0, 1.0)
        return self.op("Gemm", x, weight, self.bias(outputs), transB=1)

    def relu(self, x: str) -> str:
        return self.op("Relu", x)

    def relu6(self, x: str) -> str:
        return self.op("Clip", x, self.scalar(0.0), self.scalar(6.0))

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def hard_swish(self, x: str) -> str:
        gate = self.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)
        return self.op("Mul", x, gate)

    def gelu(self, x: str) -> str:
        half = self.op("Mul", x, self.scalar(0.5))
        erf = self.op("Erf", self.op("Div", x, self.scalar(np.sqrt(2.0))))
        return self.op("Mul", half, self.op("Add", erf, self.scalar(1.0)))

    def layer_norm(self, x: str, width: int) -> str:
        scale = self.constant(np.exp(0.2 * self.rng.standard_normal(width)).astype(np.float32))
        return self.op("LayerNormalization", x, scale, self.bias(width), axis=-1, epsilon=1e-5)

    def max_pool(self, x: str, kernel: int, *, stride: int = 1) -> str:
        pads = [(kernel - 1) // 2] * 4 if kernel % 2 else [0] * 4
        return self.op("MaxPool", x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    def concat(self, *tensors: str, axis: int = 1) -> str:
        out = self.op("Concat", *tensors, axis=axis)
        if axis == 1 and all(t in self.channels for t in tensors):
            self.channels[out] = sum(self.channels[t] for t in tensors)
        return out

    def upsample(self, x: str, mode: str = "nearest") -> str:
        scales = self.constant(np.array([1, 1, 2, 2], np.float32), "scales")
        how = "asymmetric" if mode == "nearest" else "half_pixel"
        attributes = {"nearest_mode": "floor"} if mode == "nearest" else {}
        return self.op(
            "Resize", x, "", scales, mode=mode, coordinate_transformation_mode=how, **attributes
        )

    def build(self, name: str, *outputs: str) -> onnx.ModelProto:
        """The checked model; outputs are named and typed by shape inference."""
        made = {name: node.op_type for node in self.nodes for name in node.output}
        infos = [
            helper.make_tensor_value_info(
                out, TensorProto.INT64 if made[out] in _INDEX_OPS else TensorProto.FLOAT, None
            )
            for out in outputs
        ]
        graph = helper.make_graph(self.nodes, name, self.inputs, infos, self.initializers)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _name(self, stem: str) -> str:
        number = self._counts.get(stem, 0)
        self._counts[stem] = number + 1
        return f"{stem}_{number}"
