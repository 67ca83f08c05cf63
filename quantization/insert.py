"""Write a placement and its ranges into a graph: Q/DQ pairs and INT8 weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from artefacts.errors import ArtefactError, ModelError
from artefacts.graph_hash import graph_hash
from calibrators.ranges import LEVELS, Ranges
from quantization.arithmetic import channel_amax, dequantize, quantize, symmetric_scale
from quantization.graph_view import GraphView
from quantization.placement import Placement, QuantizedInput, QuantizedWeight
from quantization.placement.walk import never_negative
from quantization.prepare_opset import MINIMUM_OPSET, opset_of
from quantization.prepare_shapes import check

__all__ = ["METADATA_GRAPH", "METADATA_RANGES", "QuantizedTensor", "insert_qdq", "unify_ranges"]

METADATA_GRAPH = "int8.graph_hash"
METADATA_RANGES = "int8.ranges_digest"
METADATA_PROFILE = "int8.placement"


@dataclass(frozen=True, kw_only=True)
class QuantizedTensor:
    """A weight already quantized, e.g. with learned rounding.

    Attributes:
        codes: int8 in [-127, 127], of the weight's shape.
        scale: float32; a number, or one per slice of the placement's axis.
    """

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.codes.dtype != np.int8 or (self.codes.size and self.codes.min() < -127):
            raise ModelError(
                f"a quantized weight is {self.codes.dtype} from {self.codes.min(initial=0)}, "
                f"expected int8 in [-127, 127]; clip it before"
            )
        if not (np.isfinite(self.scale) & (np.asarray(self.scale) > 0)).all():
            raise ModelError(
                "a quantized weight has a scale that is not finite and positive; give dead "
                "channels scale 1"
            )


def unify_ranges(ranges: Ranges, placement: Placement) -> Ranges:
    """The same ranges with one range, the largest, for tensors that take one scale.

    Raises:
        ArtefactError: a tensor of a group has no range.
    """
    for group in placement.shared:
        observed = [name for name in group if name not in placement.fixed]
        ranges = ranges.shared(observed, why=f"shares one scale with {len(group) - 1} others")
    return ranges


def insert_qdq(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Ranges,
    *,
    weights: Literal["int8", "float"] = "int8",
    unsigned: bool = False,
    weight_overrides: Mapping[str, QuantizedTensor] | None = None,
) -> onnx.ModelProto:
    """A new model whose placed edges go through QuantizeLinear and DequantizeLinear.

    Each quantized tensor has one pair, shared by its readers. Scales are float32 initializers,
    zero points are 0. The result carries the graph hash and the ranges digest in its metadata.

    Args:
        model: the model that was placed and calibrated.
        placement: from ``place(model)``.
        ranges: of the same graph.
        weights: ``int8`` stores weights as INT8 behind a DequantizeLinear (a quarter of the
            file); ``float`` keeps them, rounded to their codes, behind a Q/DQ pair for old parsers.
        unsigned: cpu profile only: uint8 with zero point 0 for tensors that are never negative.
        weight_overrides: weights already quantized, by name of the constant.

    Raises:
        ModelError: the model has Q/DQ already, is older than opset 13, or ``unsigned`` is asked
            for another profile than cpu.
        ArtefactError: the ranges belong to another graph, or one is missing.
    """
    _check_request(model, placement, ranges, unsigned=unsigned)
    unified = unify_ranges(ranges, placement)
    editor = _Editor(model)
    for edge in placement.activations:
        amax = placement.fixed.get(edge.observed)
        amax = unified[edge.observed].amax if amax is None else amax
        editor.quantize_activation(edge, amax, unsigned=unsigned)
    for weight in placement.weights:
        override = (weight_overrides or {}).get(weight.tensor)
        editor.quantize_weight(weight, override, keep_float=weights == "float")
    result = editor.finish()
    check(result)
    helper.set_model_props(
        result,
        {
            **{entry.key: entry.value for entry in model.metadata_props},
            METADATA_GRAPH: ranges.graph_hash,
            METADATA_RANGES: ranges.digest,
            METADATA_PROFILE: placement.profile,
        },
    )
    return result


def _check_request(
    model: onnx.ModelProto, placement: Placement, ranges: Ranges, *, unsigned: bool
) -> None:
    present = sum(
        node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node
    )
    if present:
        raise ModelError(
            f"model {model.graph.name!r} has {present} Q/DQ nodes, expected none; build it as it "
            f"is, or strip them first"
        )
    opset = opset_of(model)
    if opset < MINIMUM_OPSET:
        raise ModelError(
            f"model {model.graph.name!r} has opset {opset}, expected {MINIMUM_OPSET} or later; "
            f"prepare it first"
        )
    if unsigned and placement.profile != "cpu":
        raise ModelError(
            f"unsigned activations were asked for the {placement.profile} profile, expected cpu: "
            f"TensorRT reads uint8 as int8; leave it out or choose --target cpu"
        )
    found = graph_hash(model)
    if found != ranges.graph_hash:
        raise ArtefactError(
            f"ranges belong to graph {ranges.graph_hash[:12]}, expected {found[:12]} of model "
            f"{model.graph.name!r}; calibrate this model again"
        )


class _Editor:
    """A copy of a model and the nodes to be added to it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._view = GraphView(model)
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._positions = {node.name: node.position for node in self._view.nodes}
        self._taken = _names(model.graph)
        self._before: dict[int, list[onnx.NodeProto]] = {}
        self._outputs: dict[tuple[str, int | None], str] = {}
        self._zeros: dict[tuple[str, tuple[int, ...]], str] = {}
        self._unsigned: set[str] = set()

    def quantize_activation(self, edge: QuantizedInput, amax: float, *, unsigned: bool) -> None:
        """Let the edge read the tensor's Q/DQ pair, made at its first use."""
        key = (edge.tensor, None)
        if key not in self._outputs:
            maker = self._view.producer(edge.tensor)
            position = 0 if maker is None else maker.position + 1
            positive = unsigned and never_negative(self._view, edge.tensor)
            values = symmetric_scale(amax * LEVELS / 255 if positive else amax)
            scale = self._constant(f"{edge.tensor}_scale", values)
            if positive:
                self._unsigned.add(scale)
            codes = self._quantize(edge.tensor, edge.tensor, scale, None, position)
            self._outputs[key] = self._dequantize(edge.tensor, codes, scale, None, position)
        self._redirect(edge.node, edge.index, self._outputs[key])

    def quantize_weight(
        self, weight: QuantizedWeight, override: QuantizedTensor | None, *, keep_float: bool
    ) -> None:
        """Let the edge read the constant as INT8; readers with the same axis share it."""
        key = (weight.tensor, -1 if weight.axis is None else weight.axis)
        if key not in self._outputs:
            position = self._positions[weight.node]
            found = override or quantize_weight(self._view, weight)
            _check_override(self._view, weight, found)
            scale = self._constant(f"{weight.tensor}_scale", found.scale)
            if keep_float:
                values = dequantize(found.codes, found.scale, axis=weight.axis)
                rounded = self._constant(f"{weight.tensor}_rounded", values)
                codes = self._quantize(weight.tensor, rounded, scale, weight.axis, position)
            else:
                codes = self._constant(f"{weight.tensor}_int8", found.codes)
            self._outputs[key] = self._dequantize(
                weight.tensor, codes, scale, weight.axis, position
            )
        self._redirect(weight.node, weight.index, self._outputs[key])

    def finish(self) -> onnx.ModelProto:
        """The model with its nodes in order, without constants that nobody reads any more."""
        graph = self._model.graph
        kept = list(graph.node)
        del graph.node[:]
        for position, node in enumerate(kept):
            graph.node.extend([*self._before.get(position, ()), node])
        graph.node.extend(self._before.get(len(kept), ()))
        _drop_unread_constants(self._model, self._view)
        return self._model

    def _quantize(self, stem: str, source: str, scale: str, axis: int | None, position: int) -> str:
        output = self._name(f"{stem}_quantized")
        self._add("QuantizeLinear", stem, source, scale, output, axis, position)
        return output

    def _dequantize(
        self, stem: str, codes: str, scale: str, axis: int | None, position: int
    ) -> str:
        output = self._name(f"{stem}_dequantized")
        self._add("DequantizeLinear", stem, codes, scale, output, axis, position)
        return output

    def _add(
        self,
        op: str,
        stem: str,
        source: str,
        scale: str,
        output: str,
        axis: int | None,
        before: int,
    ) -> None:
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        inputs = [source, scale, self._zero_point(scale)]
        name = self._name(f"{stem}_{op}")
        node = helper.make_node(op, inputs, [output], name=name, **attributes)
        self._before.setdefault(before, []).append(node)

    def _zero_point(self, scale: str) -> str:
        """Name of a zero of the scale's shape; one constant for each type and shape."""
        shape = next(t.dims for t in reversed(self._model.graph.initializer) if t.name == scale)
        dtype = "uint8" if scale in self._unsigned else "int8"
        key = (dtype, tuple(shape))
        if key not in self._zeros:
            name = "_".join(map(str, (dtype, "zero", *shape)))
            self._zeros[key] = self._constant(name, np.zeros(tuple(shape), dtype))
        return self._zeros[key]

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        name = self._name(name)
        self._model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def _name(self, wanted: str) -> str:
        """``wanted``, with a number where the graph has that name."""
        name, number = wanted, 1
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name

    def _redirect(self, node: str, index: int, tensor: str) -> None:
        self._model.graph.node[self._positions[node]].input[index] = tensor


def quantize_weight(view: GraphView, weight: QuantizedWeight) -> QuantizedTensor:
    """Codes and scale of a constant by its largest magnitude, per slice of the axis."""
    values = _constant_value(view, weight)
    if weight.axis is None:
        amax = np.abs(values).max(initial=0.0)
    else:
        amax = channel_amax(values, weight.axis)
    scale = symmetric_scale(amax)
    codes = quantize(values, scale, axis=weight.axis).astype(np.int8)
    return QuantizedTensor(codes=codes, scale=scale)


def _constant_value(view: GraphView, weight: QuantizedWeight) -> NDArray[Any]:
    values = view.constant(weight.tensor)
    if values is None or not np.isfinite(values).all():
        found = "no constant of this model" if values is None else "not finite (NaN or infinity)"
        raise ModelError(
            f"weight {weight.tensor} of {weight.node} is {found}, expected finite numbers; export "
            f"the model again"
        )
    return values


def _check_override(view: GraphView, weight: QuantizedWeight, found: QuantizedTensor) -> None:
    shape = view.shape(weight.tensor)
    scales = () if weight.axis is None or shape is None else (shape[weight.axis],)
    if found.codes.shape != shape or found.scale.shape != scales:
        raise ModelError(
            f"quantized weight {weight.tensor} has shape {found.codes.shape} and scale shape "
            f"{found.scale.shape}, expected {shape} and {scales}; quantize it for this model"
        )


def _names(graph: onnx.GraphProto) -> set[str]:
    """Every tensor and node name of a graph, bodies of control flow included."""
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.update((node.name, *node.input, *node.output))
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                names |= _names(body)
    return names


def _drop_unread_constants(model: onnx.ModelProto, view: GraphView) -> None:
    """Remove the float weights that INT8 ones replaced, and the nodes that made them."""
    graph = model.graph
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update([*view.outputs, *view.captured])
    dead: set[str] = set()
    for node in reversed(view.nodes):
        if view.is_constant(node.outputs[0]) and not any(readers[name] for name in node.outputs):
            dead.add(node.outputs[0])
            readers.subtract(node.inputs)
    kept = [node for node in graph.node if node.output[0] not in dead]
    del graph.node[:]
    graph.node.extend(kept)
    for values in (graph.initializer, graph.input):
        for value in [v for v in values if v.name in view.initializers and not readers[v.name]]:
            values.remove(value)
    known = {name for node in graph.node for name in node.output}
    stale = [value for value in graph.value_info if value.name not in known]
    for value in stale:
        graph.value_info.remove(value)
