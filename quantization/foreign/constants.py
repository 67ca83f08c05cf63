"""Constants of quantized models, in the form that TensorRT reads; no number changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper

from artefacts.errors import ModelError
from graphs.edit import GraphEditor, set_attribute
from graphs.operators import PAIR_OPS
from graphs.qdq import DEQUANTIZE, QUANTIZE, parameters
from graphs.view import GraphView, Node

__all__ = [
    "along",
    "clip_before_quantizing",
    "codes_of",
    "fold_clipped_codes",
    "fold_integer_biases",
    "make_scalar",
    "move_transposes",
]


def fold_integer_biases(model: ModelProto) -> int:
    """Replace DequantizeLinear of INT32 constants by float32 constants; return how many.

    ``(codes - zero_point) * scale`` in float32, as ONNX defines it.
    """
    view, editor, count = GraphView(model), GraphEditor(model), 0
    for node in view.nodes:
        codes = view.constant(node.inputs[0]) if node.op_type == DEQUANTIZE else None
        if codes is None or codes.dtype != np.int32:
            continue
        found = parameters(view, node)
        if found.scale is None or found.zero_point is None:
            continue
        scale, zero = (along(part, codes, found.axis) for part in (found.scale, found.zero_point))
        value = (codes - zero.astype(np.int32)).astype(np.float32) * scale.astype(np.float32)
        editor.fold(node, value)
        count += 1
    editor.finish()
    return count


def fold_clipped_codes(model: ModelProto) -> int:
    """Quantize float weights whose codes are clipped to [-127, 127]; return how many.

    Brevitas writes Q, Clip, DQ, because ONNX has no narrow range.
    """
    view, editor, count = GraphView(model), GraphEditor(model), 0
    for clip in view.nodes:
        quantize = view.producer(clip.inputs[0]) if clip.op_type == "Clip" else None
        if quantize is None or quantize.op_type != QUANTIZE:
            continue
        codes, low, high = codes_of(view, quantize), _bound(view, clip, 1), _bound(view, clip, 2)
        if codes is None or len(view.uses(quantize.outputs[0])) > 1:
            continue
        editor.fold(clip, np.clip(codes, low, high).astype(codes.dtype))
        editor.remove(quantize)
        count += 1
    editor.finish()
    return count


def clip_before_quantizing(model: ModelProto) -> int:
    """Clip activations before they are quantized, not their codes; return how many.

    Brevitas writes Q, Clip, DQ for activations of fewer bits. No runtime here has a Clip of codes
    (OpenVINO 2026.4.1 computes something else, TensorRT refuses INT8), and the same codes come of

        Q(Clip(x, (low - zero_point) · scale, (high - zero_point) · scale))

    because rounding is monotonic and the bounds are codes themselves.
    """
    view, editor, count = GraphView(model), GraphEditor(model), 0
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
        _clip_first(editor, view, quantize, clip, values)
        count += 1
    editor.finish()
    return count


def _clip_first(
    editor: GraphEditor, view: GraphView, quantize: Node, clip: Node, ends: list[NDArray[Any]]
) -> None:
    """Another Q behind a Clip of floats, which writes what the Clip of codes wrote."""
    stem = clip.outputs[0]
    bounds = [
        editor.constant(f"{stem}//{word}", end.reshape(()))
        for word, end in zip(("low", "high"), ends, strict=True)
    ]
    clipped = editor.names.tensor(f"{stem}//clipped")
    first = editor.names.node("Clip", [quantize.inputs[0], *bounds], [clipped], wanted=clipped)
    second = onnx.NodeProto()
    second.CopyFrom(quantize.proto)
    editor.names.rename(second, f"{stem}//quantized")
    second.input[0] = clipped
    second.output[0] = editor.names.tensor(f"{stem}//codes")
    editor.insert(clip.position, first, second)
    editor.remove(clip)
    for use in view.uses(stem):
        editor.redirect(use.node, use.index, second.output[0])


def make_scalar(model: ModelProto) -> int:
    """Write scales of shape (1,) as scalars, and their zero points; return how many nodes.

    One scale is one scale to ONNX, but TensorRT-RTX 1.7.1 leaves a layer with such a pair in FP16.
    """
    view, editor, count = GraphView(model), GraphEditor(model), 0
    scalars: dict[str, str] = {}
    for node in view.nodes:
        if node.op_type not in PAIR_OPS:
            continue
        scale = view.constant(node.inputs[1])
        if scale is None or scale.shape != (1,):
            continue
        for index, name in enumerate(node.inputs[1:3], start=1):
            value = view.constant(name) if name else None
            if value is None or value.size != 1:
                continue
            if name not in scalars:
                scalars[name] = editor.constant(f"{name}//scalar", value.reshape(()))
            editor.redirect(node, index, scalars[name])
        count += 1
    return count


def move_transposes(model: ModelProto) -> int:
    """Transpose constants before they are quantized, not after; return how many.

    tf2onnx keeps TensorFlow's layout (height, width, C_in, C_out) for weights and transposes what
    DequantizeLinear gives; the layer is to read DequantizeLinear itself.
    """
    view, editor, count = GraphView(model), GraphEditor(model), 0
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
        if _transpose(editor, view, node, chain):
            editor.remove(node)
            count += 1
    editor.finish()
    return count


def _transpose(editor: GraphEditor, view: GraphView, node: Node, chain: list[Node]) -> bool:
    """Apply a Transpose to the constant at the head of DQ, or of Q and DQ."""
    value = view.constant(chain[-1].inputs[0])
    if value is None:
        return False
    order = node.integers("perm") or tuple(reversed(range(value.ndim)))
    if sorted(order) != list(range(value.ndim)):
        return False
    for link in chain:
        found = parameters(view, link)
        if found.per_channel:
            set_attribute(editor.node(link), "axis", order.index(found.axis % value.ndim))
    turned = np.asarray(value.transpose(order), order="C")
    editor.redirect(chain[-1], 0, editor.constant(f"{node.outputs[0]}//constant", turned))
    editor.node(chain[0]).output[0] = node.outputs[0]
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
