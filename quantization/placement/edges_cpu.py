"""Which edges get a Q/DQ pair for OpenVINO beyond the inputs of weighted layers."""

from __future__ import annotations

from graphs.operators import PRODUCT_OPS, RESIZE_OPS
from graphs.view import Node, Use
from quantization.placement.draft import Draft
from quantization.placement.edges import skip_input
from quantization.placement.walk import is_pass_through, may_be_unsigned

__all__ = ["before_pass_through", "left_constants", "residual_add_both"]


def left_constants(draft: Draft) -> None:
    """The constant on the left of a product gets one scale, not one a row.

    Why: OpenVINO 2026.4 has no INT8 product with scales of rows: it refuses the model, or, of a
    constant with as many rows as the product has columns, takes them for those of the columns.
    Source: measured
    """
    for node in draft.layers.values():
        if node.op_type in PRODUCT_OPS:
            draft.share_weight_scale(node, 0)


def residual_add_both(draft: Draft) -> None:
    """A residual Add reads both its inputs as INT8.

    Why: OpenVINO adds in INT8 behind the convolution only if both sides are quantized; else the
    sum is a float kernel of its own.
    Source: measured, [nncf]
    """
    for node in draft.view.nodes:
        if node.op_type == "Add" and len(node.inputs) == 2:
            skip = skip_input(draft, node)
            if skip is not None:
                draft.quantize(node, 0)
                draft.quantize(node, 1)


def before_pass_through(draft: Draft) -> None:
    """Q/DQ goes before MaxPool, Slice, Concat and other ops that only move values.

    Where everything that reads their output is quantized. Behind a Pad of values that may be
    negative, unless a convolution alone reads it, which takes it in; and behind a Resize whose
    sizes are computed.

    Why: OpenVINO moves a DQ down across them but no Q up, so they run on INT8 only behind it. Codes
    of both signs have a zero point there, and a DQ that has one does not pass a Pad: what reads it
    would run in float (basic-pitch's stack of padded harmonics did). It passes no Resize to sizes
    that are computed either (the decoder of a U-Net of any size of image).
    Source: measured, [nncf]
    """
    for node in reversed(draft.view.nodes):
        joins = draft.joins(node)
        if node.name in draft.excluded or not (joins or is_pass_through(draft.view, node)):
            continue
        uses = [use for name in node.outputs if name for use in draft.view.uses(name)]
        if node.op_type == "Pad" and not _passes_pad(draft, node, uses):
            continue
        if node.op_type in RESIZE_OPS and not all(map(draft.view.is_constant, _given(node))):
            continue
        if uses and _serves_only_int8(draft, node, uses):
            for use in uses:
                draft.release(use.node, use.index)
            for index in range(len(node.inputs) if joins else 1):
                draft.quantize(node, index)


def _given(node: Node) -> list[str]:
    """What a Resize reads beside its map: scales or sizes."""
    return [name for name in node.inputs[1:] if name]


def _passes_pad(draft: Draft, node: Node, uses: list[Use]) -> bool:
    taken_in = all(use.node.op_type == "Conv" and use.index == 0 for use in uses)
    return taken_in or may_be_unsigned(draft.view, node.inputs[0])


def _serves_only_int8(draft: Draft, node: Node, uses: list[Use]) -> bool:
    quantized = all(draft.is_quantized(use.node, use.index) for use in uses)
    return quantized and draft.view.read_outside.isdisjoint(node.outputs)
