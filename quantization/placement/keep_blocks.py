"""Blocks whose layers stay in floating point: attention without a kernel, squeeze-and-excite."""

from __future__ import annotations

from graphs.operators import AVERAGE_OPS, POINTWISE_OPS, WEIGHTED_OPS
from graphs.view import GraphView, Node
from quantization.placement.attention import (
    attention_softmax,
    follows_softmax,
    is_convolved,
    pairs_of_products,
)
from quantization.placement.draft import Draft
from quantization.placement.walk import is_pass_through

__all__ = ["float_attention", "half_attention", "squeeze_excite", "unfused_attention"]

# What TensorRT-RTX 1.7.1 compiles to one INT8 kernel for SM 8.0, 8.6, 8.9 and 12.0.
_MOST_KEYS = 512
_FUSED_HEADS = (16, 32, 64)


def float_attention(draft: Draft, node: Node) -> str | None:
    """Both MatMuls of every attention stay in floating point with ``--attention float``.

    Why: the scores and probabilities of INT8 attention have no smoothing weights behind them; the
    user knows, or has measured, that they lose too much accuracy.
    Source: ours
    """
    if draft.attention != "float" or attention_softmax(draft.view, node) is None:
        return None
    return "attention, which is asked for in floating point"


def unfused_attention(draft: Draft, node: Node) -> str | None:
    """Both MatMuls of an attention stay in floating point unless TensorRT fuses it in INT8.

    It does for up to 512 known positions that are attended to and heads of 16, 32 or 64 channels;
    then Q, K, V and the Softmax output are read as INT8. The scaling, the mask Add and the Softmax
    between are never quantized. Where float16 is not fused either, attention is INT8 at every size:
    of a single head, and where convolutions make Q, K and V. So is all with ``--attention int8``.

    Why: other INT8 attention is split into kernels that write the scores to memory, while FP16
    attention of several heads stays one kernel for every length and head tried.
    Source: measured, [attention], [modelopt]
    """
    softmax = None if draft.attention == "int8" else attention_softmax(draft.view, node)
    if softmax is None or is_convolved(draft.view, node) or _is_single(draft, softmax.inputs[0]):
        return None
    queries, keys = (draft.size(softmax.inputs[0], axis) for axis in (-2, -1))
    if queries is None or keys is None or keys > _MOST_KEYS:
        sizes = "×".join("unknown" if size is None else str(size) for size in (queries, keys))
        return f"attention over {sizes} positions, fused in INT8 up to {_MOST_KEYS} attended to"
    second = follows_softmax(draft.view, node)
    head = draft.size(node.inputs[1] if second else node.inputs[0], -1)
    if head in _FUSED_HEADS:
        return None
    return f"attention with heads of {head or 'unknown'} channels, fused in INT8 for 16, 32, 64"


def _is_single(draft: Draft, scores: str) -> bool:
    """Whether scores are of one head of one sample."""
    rank = len(draft.view.shape(scores) or ())
    return rank > 2 and all(draft.size(scores, axis) == 1 for axis in range(-rank, -2))


def half_attention(draft: Draft) -> None:
    """Of an attention both MatMuls are INT8, or none.

    One that another rule or the user keeps in floating point takes the other with it, unless
    ``--attention int8`` says otherwise.

    Why: one kernel of TensorRT computes both; half an attention is two products and a Softmax
    that go through memory, where all of it in float16 is one kernel, too.
    Source: measured
    """
    if draft.attention == "int8":
        return
    for pair in pairs_of_products(draft.view, draft.view.nodes):
        floating = [node for node in pair if node.name not in draft.layers]
        for node in pair:
            if len(floating) == 1 and node not in floating:
                why = f"the attention's other product, {floating[0].name}, stays in floating point"
                draft.leave(node, "half_attention", why)


def squeeze_excite(draft: Draft) -> None:
    """The layers of a squeeze-and-excite gate stay in floating point.

    So do its pooling, Sigmoid or HardSigmoid and the Mul that applies it; the next layer's input
    is quantized after the Mul.

    Why: on a 1×1 map they are matrix-vector products, of a gate that scales every channel of the
    block: their error is everywhere, their speed nowhere.
    Source: [modelopt]
    """
    for pool in draft.view.nodes:
        if pool.op_type in AVERAGE_OPS:
            why = f"gate of a squeeze-and-excite block behind {pool.name}"
            for node in _gate_layers(draft.view, pool):
                draft.leave(node, "squeeze_excite", why)


def _gate_layers(view: GraphView, pool: Node) -> set[Node]:
    """Weighted layers between ``pool`` and the Mul that scales the pool's own input; maybe none."""
    inside: set[str] = {pool.outputs[0]}
    layers: set[Node] = set()
    for node in view.nodes[pool.position + 1 :]:
        reads = [name for name in node.inputs if name in inside]
        if not reads:
            continue
        outside = [n for n in node.inputs if n and n not in inside and not view.is_constant(n)]
        if node.op_type == "Mul" and outside == [pool.inputs[0]]:
            return layers
        if outside or not _may_be_in_gate(view, node):
            continue
        inside.add(node.outputs[0])
        if node.op_type in WEIGHTED_OPS:
            layers.add(node)
    return set()


def _may_be_in_gate(view: GraphView, node: Node) -> bool:
    known = node.op_type in WEIGHTED_OPS | POINTWISE_OPS
    return known or is_pass_through(view, node)
