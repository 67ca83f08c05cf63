"""Which edges get a Q/DQ pair in TensorRT's placement."""

from __future__ import annotations

from graphs.operators import AVERAGE_OPS, RESIZE_OPS
from graphs.view import Node
from quantization.placement.draft import Draft
from quantization.placement.masked import is_masked
from quantization.placement.walk import (
    conv_behind,
    conv_partition,
    is_pass_through,
    longer_path,
)

__all__ = [
    "average_pool",
    "layer_norm",
    "pooling_chain",
    "residual_add",
    "resize",
    "skip_input",
    "weighted_inputs",
]


def weighted_inputs(draft: Draft) -> None:
    """Conv, ConvTranspose, Gemm and MatMul read both their inputs as INT8; bias stays float.

    Weights get one scale per output channel, activations one per tensor. Outputs are not
    quantized, and nothing goes between a layer and its bias, BatchNormalization or activation.

    Why: one input without a scale keeps the whole layer in floating point; the output keeps its
    precision for the activation that fuses behind; an INT32 bias is refused by the parser.
    Source: [explicit]
    """
    for node in draft.layers.values():
        for index in (0, 1):
            draft.quantize(node, index)


def residual_add(draft: Draft) -> None:
    """A residual Add reads its skip input as INT8 and the convolution's side as it is.

    The side that comes straight from a Conv is the convolution's; if both do (a down-sampling
    shortcut), the one farther from where they part. Neither where positions are added that no
    sample changes, or taken off again behind.

    Why: Conv and Add fuse into one kernel whose output has the skip's precision. A float skip
    stops the next Q from fusing; a Q/DQ on the convolution's side breaks the fusion.
    Source: [explicit], [modelopt]
    """
    for node in draft.view.nodes:
        if node.op_type == "Add" and len(node.inputs) == 2:
            skip = skip_input(draft, node)
            if skip is not None:
                draft.quantize(node, skip)


def skip_input(draft: Draft, node: Node) -> int | None:
    """Index of the skip input of a residual Add; None for any other Add."""
    view = draft.view
    if any(view.producer(name) is None or _never_changes(draft, name) for name in node.inputs):
        return None
    convs = [conv_behind(view, name) for name in node.inputs]
    if convs[0] is convs[1]:  # no Conv at all, or one Conv on both sides
        return None
    if convs[0] is not None and convs[1] is not None:
        conv_side, _ = longer_path(view, *node.inputs)
    else:
        conv_side = 0 if convs[0] is not None else 1
        _, common = longer_path(view, *node.inputs)
        conv = convs[conv_side]
        if conv is not None and common == conv.name:
            return None
    conv = convs[conv_side]
    if conv is None or conv.name not in draft.layers:
        return None
    masks = any(is_masked(view, name) for name in node.inputs)
    return None if masks or _is_taken_off(draft, node.outputs[0]) else 1 - conv_side


def _never_changes(draft: Draft, tensor: str) -> bool:
    """Whether no sample changes a tensor: a constant, or a grid that is repeated for a batch."""
    return draft.view.is_constant(tensor) or tensor in draft.unchanging


def _is_taken_off(draft: Draft, total: str) -> bool:
    """Whether what no sample changes is subtracted from a sum, place by place.

    A flow is where a pixel is less where it was: what remains is smaller than the steps of the
    sum (RAFT, for the CPU: 12.9 dB with both sides of such sums in INT8, 25.5 with neither).
    """
    view, pending = draft.view, [total]
    while pending:
        for use in view.uses(pending.pop()):
            if use.node.op_type == "Sub":
                other = use.node.inputs[1 - use.index]
                shape = view.shape(other) or ()
                if _never_changes(draft, other) and any(size != 1 for size in shape[-2:]):
                    return True
            elif is_pass_through(view, use.node):
                pending += use.node.outputs
    return False


def average_pool(draft: Draft) -> None:
    """An average pooling between INT8 layers reads INT8.

    Only if it follows a weighted layer and all that reads its output is quantized. A MaxPool needs
    no Q/DQ of its own: Q and DQ move across it.

    Why: a layer without weights that reads INT8 must write INT8 too, else it runs in float behind
    a DQ.
    Source: [explicit]
    """
    for node in reversed(draft.view.nodes):
        pooling = node.op_type in AVERAGE_OPS
        if pooling and _follows_layer(draft, node) and _read_as_int8(draft, node.outputs[0]):
            draft.quantize(node, 0)


def pooling_chain(draft: Draft) -> None:
    """A MaxPool behind or before another one reads INT8 where all that reads its output does.

    Why: Q and DQ move across a single MaxPool. Across a chain whose members are joined, as in the
    pyramid pooling of YOLO, the builder moves them by computing every MaxPool twice.
    Source: measured
    """
    view = draft.view
    for node in reversed(view.nodes):
        if node.op_type != "MaxPool":
            continue
        before = view.producer(node.inputs[0])
        behind = [use.node.op_type for use in view.uses(node.outputs[0])]
        chained = "MaxPool" in behind or (before is not None and before.op_type == "MaxPool")
        if chained and _read_as_int8(draft, node.outputs[0]):
            draft.quantize(node, 0)


def resize(draft: Draft) -> None:
    """A Resize between INT8 layers reads INT8, with the scale of what it writes.

    Only nearest and linear modes: cubic overshoots the range of its input.

    Why: the upsampled map is the large one; equal scales let Q move across.
    Source: [modelopt]
    """
    for node in reversed(draft.view.nodes):
        if node.op_type not in RESIZE_OPS:
            continue
        convex = node.text("mode", "nearest") in ("nearest", "linear")
        if convex and _follows_layer(draft, node) and _read_as_int8(draft, node.outputs[0]):
            draft.quantize(node, 0)


def layer_norm(draft: Draft) -> None:
    """A LayerNormalization right behind a Conv reads INT8.

    Why: the Conv then writes INT8 and gets the faster kernel.
    Source: [modelopt]
    """
    for node in draft.view.nodes:
        if node.op_type != "LayerNormalization":
            continue
        name = node.inputs[0]
        while (maker := draft.view.producer(name)) and is_pass_through(draft.view, maker):
            name = maker.inputs[0]
        if maker is not None and maker.op_type == "Conv" and maker.name in draft.layers:
            draft.quantize(node, 0)


def _follows_layer(draft: Draft, node: Node) -> bool:
    """Whether an INT8 layer's fused kernel, an Add or a Concat writes the input.

    Activations and ops that keep the range are looked through.
    """
    view = draft.view
    name = node.inputs[0]
    while (maker := view.producer(name)) is not None:
        if maker.op_type in ("Add", "Concat"):
            return True
        layer = conv_partition(view, name)
        if layer is not None:
            return layer.name in draft.layers
        if not is_pass_through(view, maker) and maker.op_type not in ("Relu", "Clip", "LeakyRelu"):
            return False
        name = maker.inputs[0]
    return False


def _read_as_int8(draft: Draft, tensor: str) -> bool:
    """Whether every reader of ``tensor`` reads it through Q/DQ, looking across pass-through ops."""
    view = draft.view
    pending = [tensor]
    while pending:
        name = pending.pop()
        uses = view.uses(name)
        if not uses or name in view.read_outside:
            return False
        for use in uses:
            if draft.is_quantized(use.node, use.index):
                continue
            if use.node.op_type != "Concat" and not is_pass_through(view, use.node):
                return False
            pending.append(use.node.outputs[0])
    return True
