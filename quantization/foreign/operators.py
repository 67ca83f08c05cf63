"""QOperator nodes as the float operator between DequantizeLinear and QuantizeLinear.

``y = Q(op(DQ(x), DQ(w)) + bias)`` is what a QLinear operator means; onnxruntime defines its own
that way (onnxruntime: docs/ContribOperators.md). An integer bias counts in steps of
``scale_x * scale_w`` and becomes a float one. Integer kernels and float ones may round a product
that falls between two codes to different sides: results agree to one code, not to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from artefacts.errors import ModelError
from graphs.edit import replace_nodes
from graphs.names import Names, node_name, replacement
from graphs.operators import INTEGER_OPS, PAIR_OPS
from graphs.qdq import DEQUANTIZE, QUANTIZE
from graphs.walk import constants, nodes, operator

__all__ = ["unfold_operators"]

_MICROSOFT = "com.microsoft"


def unfold_operators(model: ModelProto) -> int:
    """Replace QOperator nodes, in place; return how many there were.

    Raises:
        ModelError: one computes its scales at run time, or has no counterpart.
    """
    writer = _Writer(model)
    count = 0
    for node in nodes(model):
        name = operator(node)
        if name in _RULES:
            _RULES[name](writer, node)
            count += 1
        elif name in INTEGER_OPS:
            raise ModelError(
                f"node {node_name(node)!r} is {name}, which has no exact form with fixed scales; "
                "export the model in floating point, or `prepare` it where it is dynamically "
                "quantized, and calibrate it"
            )
        elif node.domain == _MICROSOFT and node.op_type in PAIR_OPS:
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.domain = ""
            writer.nodes.append(copy)
        else:
            writer.nodes.append(node)
    replace_nodes(model.graph, writer.nodes)
    if all(node.domain != _MICROSOFT for node in nodes(model)):
        kept = [entry for entry in model.opset_import if entry.domain != _MICROSOFT]
        del model.opset_import[:]
        model.opset_import.extend(kept)
    return count


class _Writer:
    """The new nodes and constants."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.known = constants(model.graph)
        self.names = Names(model.graph)
        self.nodes: list[NodeProto] = []
        self.floats: dict[tuple[str, ...], str] = {}
        self.ranks = {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in (*model.graph.value_info, *model.graph.input)
        }

    def value(self, node: NodeProto, name: str) -> NDArray[Any]:
        """A constant input.

        Raises:
            ModelError: it is computed.
        """
        if name not in self.known:
            raise ModelError(
                f"node {node_name(node)!r} ({node.op_type}) computes {name!r}, "
                f"expected a constant; export the model with static quantization"
            )
        return numpy_helper.to_array(self.known[name])

    def float_of(self, node: NodeProto, first: int, axis: int | None = None) -> str:
        """The float tensor of codes, scale and zero point at inputs ``first`` and after."""
        names = tuple(node.input[first : first + 3])
        scale = self.value(node, names[1])
        key = names if scale.size == 1 else (*names, str(axis))
        if key not in self.floats:
            target = self.names.tensor(f"{names[0]}//float:{len(self.floats)}")
            attributes: dict[str, Any] = {} if scale.size == 1 or axis is None else {"axis": axis}
            self.nodes.append(
                self.names.node(DEQUANTIZE, names, [target], wanted=target, **attributes)
            )
            self.floats[key] = target
        return self.floats[key]

    def bias(self, node: NodeProto, index: int, data: int, weight: int) -> list[str]:
        """The float tensor of an INT32 bias in steps of data scale times weight scale."""
        if len(node.input) <= index or not node.input[index]:
            return []
        steps = self.value(node, node.input[index]).astype(np.float64)
        scales = [self.value(node, node.input[i]).astype(np.float64) for i in (data, weight)]
        target = self.names.tensor(f"{node.output[0]}//bias")
        value = (steps * scales[0] * scales[1].reshape(-1)).astype(np.float32)
        self.known[target] = self.graph.initializer.add()
        self.known[target].CopyFrom(numpy_helper.from_array(value, target))
        return [target]

    def write(
        self,
        node: NodeProto,
        op_type: str,
        inputs: list[str],
        output: list[str],
        *,
        drop: tuple[str, ...] = (),
    ) -> None:
        """The float operator, and the Q behind it where ``output`` has scale and zero point."""
        target = self.names.tensor(f"{node.output[0]}//real") if output else node.output[0]
        real = replacement(node, op_type, inputs, [target])
        real.attribute.extend(a for a in node.attribute if a.name not in drop)
        self.nodes.append(real)
        if output:
            self.nodes.append(
                self.names.node(
                    QUANTIZE, [target, *output], node.output[:1], wanted=f"{target}//quantize"
                )
            )


def _conv(writer: _Writer, node: NodeProto) -> None:
    inputs = [writer.float_of(node, 0), writer.float_of(node, 3, axis=0)]
    inputs += writer.bias(node, 8, 1, 4)
    writer.write(node, "Conv", inputs, list(node.input[6:8]))


def _matmul(writer: _Writer, node: NodeProto) -> None:
    """Scales of the right operand may be one a column, those of the left one a row."""
    if writer.value(node, node.input[1]).size > 1:
        raise ModelError(
            f"node {node_name(node)!r} (QLinearMatMul) has a scale for each row of its "
            f"data, expected one; export the model with one scale for each activation"
        )
    right = writer.known.get(node.input[3])
    rank = len(right.dims) if right is not None else writer.ranks.get(node.input[3], 2)
    inputs = [writer.float_of(node, 0), writer.float_of(node, 3, axis=rank - 1)]
    writer.write(node, "MatMul", inputs, list(node.input[6:8]))


def _gemm(writer: _Writer, node: NodeProto) -> None:
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    inputs = [writer.float_of(node, 0), writer.float_of(node, 3, axis=0 if transposed else 1)]
    inputs += writer.bias(node, 6, 1, 4)
    writer.write(node, "Gemm", inputs, [name for name in node.input[7:9] if name])


def _binary(op_type: str) -> Callable[[_Writer, NodeProto], None]:
    def rule(writer: _Writer, node: NodeProto) -> None:
        inputs = [writer.float_of(node, 0), writer.float_of(node, 3)]
        writer.write(node, op_type, inputs, list(node.input[6:8]))

    return rule


def _unary(op_type: str) -> Callable[[_Writer, NodeProto], None]:
    def rule(writer: _Writer, node: NodeProto) -> None:
        if any(a.name == "channels_last" and a.i for a in node.attribute):
            raise ModelError(
                f"node {node_name(node)!r} ({node.op_type}) has its channels last, "
                f"expected them second; export the model without onnxruntime's NHWC transform"
            )
        drop = ("channels_last", "opset")
        writer.write(node, op_type, [writer.float_of(node, 0)], list(node.input[3:5]), drop=drop)

    return rule


def _concat(writer: _Writer, node: NodeProto) -> None:
    inputs = [writer.float_of(node, first) for first in range(2, len(node.input), 3)]
    writer.write(node, "Concat", inputs, list(node.input[:2]))


def _where(writer: _Writer, node: NodeProto) -> None:
    inputs = [node.input[0], writer.float_of(node, 1), writer.float_of(node, 4)]
    writer.write(node, "Where", inputs, list(node.input[7:9]))


_RULES: dict[str, Callable[[_Writer, NodeProto], None]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    f"{_MICROSOFT}.QGemm": _gemm,
    f"{_MICROSOFT}.QLinearAdd": _binary("Add"),
    f"{_MICROSOFT}.QLinearAveragePool": _unary("AveragePool"),
    f"{_MICROSOFT}.QLinearConcat": _concat,
    f"{_MICROSOFT}.QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    f"{_MICROSOFT}.QLinearLeakyRelu": _unary("LeakyRelu"),
    f"{_MICROSOFT}.QLinearMul": _binary("Mul"),
    f"{_MICROSOFT}.QLinearSigmoid": _unary("Sigmoid"),
    f"{_MICROSOFT}.QLinearSoftmax": _unary("Softmax"),
    f"{_MICROSOFT}.QLinearWhere": _where,
}
