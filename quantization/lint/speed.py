"""Lint rules for what builds but runs slower, or less exactly, than it could.

Each yields (node, what was found).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphs.operators import ACTIVATION_OPS, WEIGHTED_OPS
from graphs.qdq import (
    DEQUANTIZE,
    QUANTIZE,
    copies,
    dequantizer,
    is_quantized,
    parameters,
    source,
)
from graphs.view import GraphView, Node

__all__ = [
    "concat_scales",
    "float_island",
    "half_quantized",
    "minimum_code",
    "mismatched_pair",
    "output_pair",
    "pair_before_activation",
    "pair_before_add",
    "per_channel_activation",
    "per_tensor_weight",
    "scale_range",
    "scale_shape",
    "skip_float",
    "unpaired",
    "weight_axis",
]

Found = Iterator[tuple[Node, str]]

_SMALLEST_NORMAL = float(np.finfo(np.float32).smallest_normal)


def unpaired(view: GraphView) -> Found:
    """Codes go from a Q to a DQ, through copies at most."""
    for node in view.nodes:
        if node.op_type == QUANTIZE and not view.is_constant(node.inputs[0]):
            others = [use.node for use in view.uses(node.outputs[0]) if not copies(use.node)]
            strange = [other.op_type for other in others if other.op_type != DEQUANTIZE]
            if strange:
                yield node, f"its codes are read by {strange[0]}"
        elif node.op_type == DEQUANTIZE and source(view, node) is None:
            codes = node.inputs[0]
            if not view.is_constant(codes) and codes not in view.inputs:
                yield node, f"its codes come from {_maker(view, codes)}"


def half_quantized(view: GraphView) -> Found:
    """A layer runs INT8 only where all of its inputs do."""
    for node in view.nodes:
        if node.op_type not in WEIGHTED_OPS or len(node.inputs) < 2:
            continue
        quantized = [is_quantized(view, name) for name in node.inputs[:2]]
        if any(quantized) and not all(quantized):
            yield node, f"input {quantized.index(False)} ({node.inputs[quantized.index(False)]})"


def float_island(view: GraphView) -> Found:
    """A layer in floating point whose data comes from an INT8 layer and goes to one."""
    for node in view.nodes:
        if node.op_type not in WEIGHTED_OPS or is_quantized(view, node.inputs[0]):
            continue
        before = _next_layer(view, node, forward=False)
        after = _next_layer(view, node, forward=True)
        if before is not None and after is not None:
            yield node, f"between {before.name} and {after.name}"


def _next_layer(view: GraphView, node: Node, *, forward: bool) -> Node | None:
    """The nearest weighted layer in one direction, where it is INT8."""
    todo, seen = [node], {id(node)}
    while todo:
        current = todo.pop()
        for other in _neighbours(view, current, forward=forward):
            if id(other) in seen:
                continue
            seen.add(id(other))
            if other.op_type not in WEIGHTED_OPS:
                todo.append(other)
            elif is_quantized(view, other.inputs[0]):
                return other
    return None


def _neighbours(view: GraphView, node: Node, *, forward: bool) -> list[Node]:
    if forward:
        uses = [use for name in node.outputs for use in view.uses(name)]
        return [use.node for use in uses if use.index == 0 or use.node.op_type not in WEIGHTED_OPS]
    data = node.inputs[:1] if node.op_type in WEIGHTED_OPS else node.inputs
    makers = [view.producer(name) for name in data]
    return [maker for maker in makers if maker is not None]


def pair_before_add(view: GraphView) -> Found:
    """A convolution fuses with the Add behind it, unless a Q/DQ pair is between."""
    for node, sides in _residual_adds(view):
        if len(sides) == 2:
            continue  # two convolutions: one of them is the skip, and its pair is right
        for pair, layer in sides:
            if pair is not None:
                yield pair, f"between {layer.name} and {node.name}"


def skip_float(view: GraphView) -> Found:
    """The Add behind an INT8 convolution runs in the type of its other input."""
    for node, sides in _residual_adds(view):
        quantized = [layer for _, layer in sides if is_quantized(view, layer.inputs[0])]
        pairs = [is_quantized(view, name) for name in node.inputs]
        if quantized and not any(pairs):
            skip = next((n for n in node.inputs if view.producer(n) is not quantized[0]), "")
            yield node, f"input {skip}"


def _residual_adds(view: GraphView) -> Iterator[tuple[Node, list[tuple[Node | None, Node]]]]:
    """Adds of two computed tensors, with each side that is a convolution read by it alone."""
    for node in view.nodes:
        if node.op_type != "Add" or any(view.is_constant(name) for name in node.inputs):
            continue
        sides = []
        for name in node.inputs:
            pair = dequantizer(view, name)
            quantize = source(view, pair) if pair is not None else None
            layer = view.producer(quantize.inputs[0] if quantize is not None else name)
            alone = layer is not None and len(view.uses(layer.outputs[0])) == 1
            if layer is not None and layer.op_type.startswith("Conv") and alone:
                sides.append((pair, layer))
        if sides:
            yield node, sides


def pair_before_activation(view: GraphView) -> Found:
    """A layer fuses with its activation, unless a Q/DQ pair is between."""
    for node in view.nodes:
        pair = dequantizer(view, node.inputs[0]) if node.op_type in ACTIVATION_OPS else None
        quantize = source(view, pair) if pair is not None else None
        layer = view.producer(quantize.inputs[0]) if quantize is not None else None
        if pair is not None and layer is not None and layer.op_type in WEIGHTED_OPS:
            yield pair, f"between {layer.name} and {node.name}"


def concat_scales(view: GraphView) -> Found:
    """Codes can be joined as they are only where all have one scale."""
    for node in view.nodes:
        if node.op_type != "Concat":
            continue
        pairs = [dequantizer(view, name) for name in node.inputs]
        scales = [parameters(view, pair).scale for pair in pairs if pair is not None]
        numbers = {
            float(scale.flat[0]) for scale in scales if scale is not None and scale.size == 1
        }
        if len(numbers) > 1:
            yield node, f"scales {', '.join(f'{number:.6g}' for number in sorted(numbers))}"


def output_pair(view: GraphView) -> Found:
    """Rounding of a result that nobody computes with."""
    for node in view.nodes:
        if node.op_type == DEQUANTIZE and node.outputs[0] in view.outputs:
            yield node, f"output {node.outputs[0]}"


def mismatched_pair(view: GraphView) -> Found:
    """A pair that does not give back what it took."""
    for node in view.nodes:
        quantize = source(view, node) if node.op_type == DEQUANTIZE else None
        if quantize is None:
            continue
        before, after = parameters(view, quantize).scale, parameters(view, node).scale
        if before is None or after is None or before.size != after.size:
            continue
        if not np.array_equal(before, after):
            yield node, f"scale {after.flat[0]:g}, its QuantizeLinear has {before.flat[0]:g}"


def minimum_code(view: GraphView) -> Found:
    """Symmetric codes are -127 to 127."""
    for node in view.nodes:
        codes = view.constant(node.inputs[0]) if node.op_type == DEQUANTIZE else None
        if codes is not None and codes.dtype == np.int8:
            count = int(np.count_nonzero(codes == -128))
            if count:
                yield node, f"{count} of {codes.size} codes are -128"


def per_channel_activation(view: GraphView) -> Found:
    """Activations have one scale."""
    for node in view.nodes:
        if node.op_type == QUANTIZE and not view.is_constant(node.inputs[0]):
            found = parameters(view, node)
            if found.per_channel and found.scale is not None:
                yield node, f"{found.scale.size} scales"


def scale_shape(view: GraphView) -> Found:
    """One scale for a whole tensor is a scalar; a list of one is what a single channel has."""
    for node in view.nodes:
        scale = parameters(view, node).scale if node.op_type in (QUANTIZE, DEQUANTIZE) else None
        if scale is None or scale.shape != (1,):
            continue
        shape, axis = view.shape(node.inputs[0]) or (), parameters(view, node).axis
        if not (-len(shape) <= axis < len(shape) and shape[axis] == 1):
            yield node, f"scale of shape [1] for {len(shape)} axes"


def weight_axis(view: GraphView) -> Found:
    """Scales of a weight go with output channels."""
    for node in view.nodes:
        dequantize = dequantizer(view, node.inputs[1]) if len(node.inputs) > 1 else None
        axis = output_channel_axis(node)
        if dequantize is None or axis is None or not view.is_constant(_stored(view, dequantize)):
            continue
        found, rank = parameters(view, dequantize), len(view.shape(node.inputs[1]) or ())
        if node.op_type == "MatMul":
            axis = rank - 1
        if found.per_channel and rank and found.axis % rank != axis:
            yield dequantize, f"axis {found.axis}, the output channels of {node.op_type} are {axis}"


def _stored(view: GraphView, dequantize: Node) -> str:
    """The codes that a DequantizeLinear reads, or what its QuantizeLinear does."""
    quantize = source(view, dequantize)
    return dequantize.inputs[0] if quantize is None else quantize.inputs[0]


def output_channel_axis(node: Node) -> int | None:
    """Axis of the output channels in a layer's weight; None for other operators."""
    if node.op_type == "Gemm":
        return 0 if node.integer("transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}.get(node.op_type)


def per_tensor_weight(view: GraphView) -> Found:
    """One scale for all channels rounds the small ones away."""
    for node in view.nodes:
        pair = dequantizer(view, node.inputs[1]) if len(node.inputs) > 1 else None
        if pair is None or output_channel_axis(node) is None:
            continue
        scale = parameters(view, pair).scale
        if view.is_constant(_stored(view, pair)) and scale is not None and scale.size == 1:
            yield pair, f"weight of {node.name}"


def scale_range(view: GraphView) -> Found:
    """Scales that a float32 engine flushes to zero or that are infinite."""
    for node in view.nodes:
        scale = parameters(view, node).scale if node.op_type in (QUANTIZE, DEQUANTIZE) else None
        if scale is None or scale.dtype == np.float16:
            continue
        numbers = scale.astype(np.float64)
        wrong = numbers[(numbers > 0) & ((numbers < _SMALLEST_NORMAL) | np.isinf(numbers))]
        if wrong.size:
            yield node, f"scale {wrong.flat[0]:g}"


def _maker(view: GraphView, tensor: str) -> str:
    node = view.producer(tensor)
    return "an input" if node is None else node.op_type
