"""Constants of quantized models, in the form that TensorRT reads; no number changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from artefacts.errors import ModelError
from graphs.edit import replace_nodes
from graphs.qdq import DEQUANTIZE, QUANTIZE, parameters
from graphs.view import GraphView, Node

__all__ = [
    "along",
    "clip_before_quantizing",
    "codes_of",
    "fold_clipped_codes",
    "fold_integer_biases",
    "move_transposes",
]


def fold_integer_biases(model: ModelProto) -> int:
    """Replace DequantizeLinear of INT32 constants by float32 constants; return how many.

    ``(codes - zero_point) * scale`` in float32, as ONNX defines it.
    """
    view = GraphView(model)
    gone: set[str] = set()
    for node in view.nodes:
        codes = view.constant(node.inputs[0]) if node.op_type == DEQUANTIZE else None
        if codes is None or codes.dtype != np.int32:
            continue
        found = parameters(view, node)
        if found.scale is None or found.zero_point is None:
            continue
        scale, zero = (along(part, codes, found.axis) for part in (found.scale, found.zero_point))
        value = (codes - zero.astype(np.int32)).astype(np.float32) * scale.astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, node.outputs[0]))
        gone.add(node.outputs[0])
    if gone:
        replace_nodes(model.graph, [n for n in model.graph.node if n.output[0] not in gone])
    return len(gone)


def fold_clipped_codes(model: ModelProto) -> int:
    """Quantize float weights whose codes are clipped to [-127, 127]; return how many.

    Brevitas writes Q, Clip, DQ, because ONNX has no narrow range.
    """
    view = GraphView(model)
    gone: set[str] = set()
    for clip in view.nodes:
        quantize = view.producer(clip.inputs[0]) if clip.op_type == "Clip" else None
        if quantize is None or quantize.op_type != QUANTIZE:
            continue
        codes, low, high = codes_of(view, quantize), _bound(view, clip, 1), _bound(view, clip, 2)
        if codes is None or len(view.uses(quantize.outputs[0])) > 1:
            continue
        clipped = np.clip(codes, low, high).astype(codes.dtype)
        model.graph.initializer.append(numpy_helper.from_array(clipped, clip.outputs[0]))
        gone |= {quantize.outputs[0], clip.outputs[0]}
    if gone:
        replace_nodes(model.graph, [n for n in model.graph.node if n.output[0] not in gone])
    return len(gone) // 2


def clip_before_quantizing(model: ModelProto) -> int:
    """Clip activations before they are quantized, not their codes; return how many.

    Brevitas writes Q, Clip, DQ for activations of fewer bits. No runtime here has a Clip of codes
    (OpenVINO 2026.4.1 computes something else, TensorRT refuses INT8), and the same codes come of

        Q(Clip(x, (low - zero_point) · scale, (high - zero_point) · scale))

    because rounding is monotonic and the bounds are codes themselves.
    """
    view = GraphView(model)
    gone: set[str] = set()
    for clip in view.nodes:
        quantize = view.producer(clip.inputs[0]) if clip.op_type == "Clip" else None
        if quantize is None or quantize.op_type != QUANTIZE or view.is_constant(quantize.inputs[0]):
            continue
        found = parameters(view, quantize)
        if found.scale is None or found.zero_point is None or found.per_channel:
            continue
        limits = np.iinfo(helper.tensor_dtype_to_np_dtype(found.data_type))
        ends = (_bound(view, clip, 1), limits.min), (_bound(view, clip, 2), limits.max)
        codes = [default if end is None else end for end, default in ends]
        values = [(code - int(found.zero_point.reshape(()))) * found.scale for code in codes]
        _clip_first(model, quantize, clip, values)
        gone.add(clip.outputs[0])
    if gone:
        replace_nodes(model.graph, [n for n in model.graph.node if n.output[0] not in gone])
    return len(gone)


def _clip_first(model: ModelProto, quantize: Node, clip: Node, ends: list[NDArray[Any]]) -> None:
    """Another Q behind a Clip of floats, which writes what the Clip of codes wrote."""
    stem = clip.outputs[0]
    names = [f"{stem}//low", f"{stem}//high"]
    for name, end in zip(names, ends, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(end.reshape(()), name))
    clipped = f"{stem}//clipped"
    first = helper.make_node("Clip", [quantize.inputs[0], *names], [clipped], name=clipped)
    second = onnx.NodeProto()
    second.CopyFrom(quantize.proto)
    second.name = f"{stem}//quantized"
    second.input[0] = clipped
    second.output[0] = f"{stem}//codes"
    place = next(i for i, n in enumerate(model.graph.node) if n.output[0] == stem)
    model.graph.node.insert(place, first)
    model.graph.node.insert(place + 1, second)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == stem:
                node.input[index] = second.output[0]


def move_transposes(model: ModelProto) -> int:
    """Transpose constants before they are quantized, not after; return how many.

    tf2onnx keeps TensorFlow's layout (height, width, C_in, C_out) for weights and transposes what
    DequantizeLinear gives; the layer is to read DequantizeLinear itself.
    """
    view = GraphView(model)
    gone: set[int] = set()
    for node in view.nodes:
        pair = view.producer(node.inputs[0]) if node.op_type == "Transpose" else None
        if pair is None or pair.op_type != DEQUANTIZE or len(view.uses(pair.outputs[0])) > 1:
            continue
        chain = [pair]
        quantize = view.producer(pair.inputs[0])
        if quantize is not None and quantize.op_type == QUANTIZE:
            if len(view.uses(quantize.outputs[0])) > 1:
                continue
            chain.append(quantize)
        if _transpose(model, view, node, chain):
            gone.add(node.position)
    if gone:
        kept = [node for index, node in enumerate(model.graph.node) if index not in gone]
        replace_nodes(model.graph, kept)
    return len(gone)


def _transpose(model: ModelProto, view: GraphView, node: Node, chain: list[Node]) -> bool:
    """Apply a Transpose to the constant at the head of DQ, or of Q and DQ."""
    value = view.constant(chain[-1].inputs[0])
    if value is None:
        return False
    order = node.integers("perm") or tuple(reversed(range(value.ndim)))
    if sorted(order) != list(range(value.ndim)):
        return False
    for link in chain:
        proto = model.graph.node[link.position]
        found = parameters(view, link)
        if found.per_channel:
            kept = [attribute for attribute in proto.attribute if attribute.name != "axis"]
            del proto.attribute[:]
            proto.attribute.extend(kept)
            moved = order.index(found.axis % value.ndim)
            proto.attribute.append(helper.make_attribute("axis", moved))
    name = f"{node.outputs[0]}//constant"
    model.graph.initializer.append(
        numpy_helper.from_array(np.asarray(value.transpose(order), order="C"), name)
    )
    model.graph.node[chain[-1].position].input[0] = name
    model.graph.node[chain[0].position].output[0] = node.outputs[0]
    return True


def codes_of(view: GraphView, quantize: Node) -> NDArray[Any] | None:
    """Codes of a constant behind a QuantizeLinear: clip(rint(x / scale) + zero point).

    Raises:
        ModelError: a scale is not a positive number.
    """
    value, found = view.constant(quantize.inputs[0]), parameters(view, quantize)
    if value is None or found.scale is None or found.zero_point is None:
        return None
    if not (found.scale > 0).all():
        raise ModelError(
            f"node {quantize.name!r} has a scale of {np.min(found.scale)}, expected positive "
            f"numbers; export the model again"
        )
    dtype = helper.tensor_dtype_to_np_dtype(found.data_type)
    limits = np.iinfo(dtype)
    scale, zero = (along(part, value, found.axis) for part in (found.scale, found.zero_point))
    codes = np.rint(value / scale) + zero
    return np.asarray(np.clip(codes, limits.min, limits.max), dtype)


def _bound(view: GraphView, clip: Node, index: int) -> int | None:
    value = view.constant(clip.inputs[index]) if len(clip.inputs) > index else None
    return None if value is None else int(value)


def along(values: NDArray[Any], tensor: NDArray[Any], axis: int) -> NDArray[Any]:
    """Per-channel numbers in the shape that broadcasts along ``axis`` of ``tensor``.

    Raises:
        ModelError: there are not as many as the axis is long.
    """
    if values.size == 1:
        return values.reshape(())
    inside = values.ndim == 1 and -tensor.ndim <= axis < tensor.ndim
    if not inside or tensor.shape[axis] != values.size:
        raise ModelError(
            f"scales of shape {values.shape} belong to axis {axis} of a tensor of shape "
            f"{tensor.shape}, expected one for each of its channels; export the model again"
        )
    shape = [1] * tensor.ndim
    shape[axis] = -1
    return values.reshape(shape)
