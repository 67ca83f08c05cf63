"""Blocks whose layers stay in floating point: attention over long sequences, squeeze-and-excite."""

from __future__ import annotations

from quantization.graph_view import WEIGHTED_OPS, GraphView, Node
from quantization.placement.draft import Draft
from quantization.placement.walk import POINTWISE_OPS, is_pass_through

__all__ = ["long_attention", "squeeze_excite"]

_LONGEST_ATTENTION = 512


def long_attention(draft: Draft, node: Node) -> str | None:
    """Both MatMuls of an attention stay in floating point beyond 512 positions, or if unknown.

    Shorter ones read Q, K, V and the Softmax output as INT8. The scaling, the mask Add and the
    Softmax between them are never quantized.

    Why: TensorRT's fused INT8 attention ends there; a lone INT8 MatMul would split the fusion.
    Source: TensorRT rule 21 (ModelOpt exclusions).
    """
    softmax = _attention_softmax(draft.view, node)
    if softmax is None:
        return None
    lengths = (draft.view.shape(softmax.inputs[0]) or (None, None))[-2:]
    if all(size is not None and size <= _LONGEST_ATTENTION for size in lengths):
        return None
    sizes = "×".join("unknown" if size is None else str(size) for size in lengths)
    return f"attention over {sizes} positions, INT8 attention ends at {_LONGEST_ATTENTION}"


def _attention_softmax(view: GraphView, node: Node) -> Node | None:
    """The Softmax that the MatMul of two activations ``node`` feeds or reads."""
    if node.op_type != "MatMul" or any(view.is_constant(name) for name in node.inputs):
        return None
    for name in node.inputs:
        while (maker := view.producer(name)) is not None:
            if maker.op_type == "Softmax":
                return maker
            if not is_pass_through(view, maker):
                break
            name = maker.inputs[0]
    return _softmax_after(view, node)


def _softmax_after(view: GraphView, node: Node) -> Node | None:
    """The Softmax reached from ``node`` through scaling, masking and reshapes."""
    between = {"Add", "Mul", "Div", "Sub", "Where", "Cast", "Max"}
    pending = [node]
    while pending:
        current = pending.pop()
        for use in view.uses(current.outputs[0]):
            if use.node.op_type == "Softmax":
                return use.node
            if use.node.op_type in between or is_pass_through(view, use.node):
                pending.append(use.node)
    return None


def squeeze_excite(draft: Draft, node: Node) -> str | None:
    """The layers of a squeeze-and-excite gate stay in floating point.

    So do its pooling, Sigmoid or HardSigmoid and the Mul that applies it; the next layer's input
    is quantized after the Mul.

    Why: on a 1×1 map they are matrix-vector products (rule 19) of a gate that scales every
    channel of the block, so their error is everywhere and their speed nowhere.
    Source: TensorRT rules 15 and 19 (ModelOpt: Mul and Sigmoid of the gate stay out).
    """
    view = draft.view
    for pool in view.nodes:
        if pool.op_type in ("GlobalAveragePool", "ReduceMean", "AveragePool"):
            layers = _gate_layers(view, pool)
            if node in layers:
                return f"gate of a squeeze-and-excite block behind {pool.name}"
    return None


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
