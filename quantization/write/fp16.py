"""The floating-point part of a graph in float16, for strongly typed TensorRT.

Own code: the converter of onnxruntime 1.31 writes nodes in an order that onnx.checker refuses and
float16 scales into opset 17, which has none; it clips large weights without a word and knows no
observed ranges. Here ONNX's own schemas say where float16 is allowed, casts stand only where types
meet, and each operator that stays in float32 is reported with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from graphs.edit import check_axes, copy_model, drop_dead, replace_nodes, rewire
from graphs.names import Names
from graphs.operators import PAIR_OPS
from graphs.opset import opset_of
from graphs.raising import raise_opset
from graphs.shapes import check, infer_shapes
from graphs.view import GraphView, Node
from graphs.walk import captured, nodes, subgraphs
from quantization.write.fp16_pairs import layers_in_float
from quantization.write.fp16_rules import accepts_half, why_float

__all__ = ["HALF_SCALE_OPSET", "HalfModel", "KeptFloat", "to_float16"]

HALF_SCALE_OPSET = 19  # the first whose QuantizeLinear takes a float16 scale
_FLOAT, _HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
# A channel whose weights are all 1e-15 gets this scale, not 0, which the parser refuses.
_SMALLEST_SCALE = np.finfo(np.float16).smallest_subnormal


@dataclass(frozen=True, kw_only=True)
class KeptFloat:
    """An operator that stayed in float32."""

    node: str
    op_type: str
    why: str


@dataclass(frozen=True, kw_only=True)
class HalfModel:
    """A converted model, what stayed in float32, and how many operators became float16."""

    model: ModelProto
    kept: tuple[KeptFloat, ...]
    halved: int


def to_float16(
    model: ModelProto,
    amax: Mapping[str, float] | None = None,
    *,
    keep_io: bool = True,
    keep: Sequence[str] = (),
    magnitudes: Mapping[str, float] | None = None,
) -> HalfModel:
    """A new model whose floating-point operators compute in float16 where that is safe.

    Q/DQ pairs get float16 scales, for which opset 19 is needed: an older model with pairs is
    raised to it. Scales that float16 cannot hold stay float32, and so does the layer that
    multiplies by them, with all its scales.

    Args:
        model: a prepared model, with or without Q/DQ.
        amax: largest |x| observed, by tensor; what passes 65504 stays float32.
        keep_io: inputs and outputs keep float32.
        keep: names of nodes that stay float32.
        magnitudes: largest |x| of a few samples, of tensors that were not observed; what passes
            65504, or fades below 6.1e-5, stays float32.

    Raises:
        ModelError: the graph is not valid, or cannot be raised to opset 19.
    """
    copy = copy_model(model)
    check_axes(copy.graph)
    check(copy)
    quantized = any(node.op_type in PAIR_OPS for node in nodes(copy))
    if quantized and opset_of(copy) < HALF_SCALE_OPSET:
        copy = raise_opset(copy, HALF_SCALE_OPSET)
    infer_shapes(copy)
    view = GraphView(copy)
    kept = tuple(_kept(view, amax or {}, magnitudes or {}, frozenset(keep)))
    writer = _Writer(view, frozenset(entry.node for entry in kept), keep_io=keep_io)
    converted = writer.write()
    drop_dead(converted.graph)
    infer_shapes(converted)
    check(converted)
    return HalfModel(model=converted, kept=kept, halved=writer.halved)


def _kept(
    view: GraphView,
    amax: Mapping[str, float],
    magnitudes: Mapping[str, float],
    keep: frozenset[str],
) -> list[KeptFloat]:
    found = []
    for node in view.nodes:
        names = [name for name in (*node.inputs, *node.outputs) if name]
        if not any(view.element_type(name) == _FLOAT for name in names):
            continue
        why = "asked for" if node.name in keep else why_float(view, node, amax, magnitudes)
        if why is not None:
            found.append(KeptFloat(node=node.name, op_type=node.op_type, why=why))
    together = layers_in_float(view, {entry.node for entry in found})
    return [
        *found,
        *(KeptFloat(node=n.name, op_type=n.op_type, why=why) for n, why in together.items()),
    ]


class _Writer:
    """Nodes in their new types, with casts where types meet."""

    def __init__(self, view: GraphView, kept: frozenset[str], *, keep_io: bool) -> None:
        self.view = view
        self.kept = kept
        self.keep_io = keep_io
        self.opset = opset_of(view.model)
        self.halved = 0
        self.model = ModelProto()
        self.model.CopyFrom(view.model)
        self.nodes: list[NodeProto] = []
        self.types: dict[str, int] = {}  # of float tensors, once written
        self.cast: dict[tuple[str, int], str] = {}
        pairs = (node for node in view.nodes if node.op_type in PAIR_OPS)
        self.scales = {node.inputs[1] for node in pairs}
        self.names = Names(view.model.graph)

    def write(self) -> ModelProto:
        """The converted model."""
        graph = self.model.graph
        for value in graph.input:
            self._write_input(value)
        for node in self.view.nodes:
            copy = NodeProto()
            copy.CopyFrom(node.proto)
            half = node.name not in self.kept
            self._write_inputs(node, copy, half=half)
            self.nodes.append(copy)
            self._write_outputs(node, copy, half=half)
        self._write_graph_outputs()
        replace_nodes(graph, self.nodes)
        return self.model

    def _write_input(self, value: onnx.ValueInfoProto) -> None:
        if value.type.tensor_type.elem_type != _FLOAT:
            return
        if not self.keep_io:
            value.type.tensor_type.elem_type = _HALF
        self.types[value.name] = value.type.tensor_type.elem_type

    def _write_inputs(self, node: Node, copy: NodeProto, *, half: bool) -> None:
        for index, name in enumerate(node.inputs):
            if name and self.view.element_type(name) == _FLOAT:
                wanted = half and accepts_half(node, self.opset, index)
                copy.input[index] = self._as(name, _HALF if wanted else _FLOAT)
        outside = {
            name: self._as(name, _FLOAT) for name in sorted(captured(copy)) if name in self.types
        }
        for body in subgraphs(copy):
            rewire(body, outside)

    def _write_outputs(self, node: Node, copy: NodeProto, *, half: bool) -> None:
        halved = False
        for index, name in enumerate(node.outputs):
            if not name or self.view.element_type(name) != _FLOAT:
                continue
            self.types[name] = _FLOAT
            if half and accepts_half(node, self.opset, index, output=True):
                self.types[name] = _HALF
                halved = True
        if halved:
            self.halved += 1
            for attribute in copy.attribute:  # Cast to float32, and outputs typed by attribute
                if attribute.name in ("to", "dtype", "output_dtype") and attribute.i == _FLOAT:
                    attribute.i = _HALF

    def _as(self, name: str, wanted: int) -> str:
        """The name under which a float tensor is available in one type."""
        if name in self.view.initializers:
            return self._constant_as(name, wanted)
        if self.types.get(name, _FLOAT) == wanted:
            return name
        if (name, wanted) not in self.cast:
            target = self.names.tensor(f"{name}//{'half' if wanted == _HALF else 'float'}")
            self.nodes.append(self.names.node("Cast", [name], [target], wanted=target, to=wanted))
            self.cast[name, wanted] = target
        return self.cast[name, wanted]

    def _constant_as(self, name: str, wanted: int) -> str:
        if wanted == _FLOAT:
            return name
        if (name, wanted) not in self.cast:
            target = self.names.tensor(f"{name}//half")
            value = numpy_helper.to_array(self.view.initializers[name]).astype(np.float16)
            if name in self.scales:
                value = np.maximum(value, _SMALLEST_SCALE)
            self.model.graph.initializer.append(numpy_helper.from_array(value, target))
            self.cast[name, wanted] = target
        return self.cast[name, wanted]

    def _write_graph_outputs(self) -> None:
        for value in self.model.graph.output:
            if self.types.get(value.name) != _HALF:
                continue
            if not self.keep_io:
                value.type.tensor_type.elem_type = _HALF
                continue
            inner = self.names.tensor(f"{value.name}//half")
            for node in self.nodes:
                node.input[:] = [inner if name == value.name else name for name in node.input]
                node.output[:] = [inner if name == value.name else name for name in node.output]
            self.nodes.append(
                self.names.node(
                    "Cast", [inner], [value.name], wanted=f"{value.name}//float", to=_FLOAT
                )
            )
