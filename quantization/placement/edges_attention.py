"""Where the Q/DQ pairs of an attention go whose Q, K and V are slices of one product."""

from __future__ import annotations

from collections.abc import Set

from graphs.view import Node, Use
from quantization.placement.attention import follows_softmax
from quantization.placement.draft import Draft
from quantization.placement.walk import conv_partition, is_pass_through

__all__ = ["sliced_attention"]

_SLICES = frozenset({"Gather", "Slice", "Split"})


def sliced_attention(draft: Draft) -> None:
    """K and V are read as INT8 right behind the slice that takes them out of one product.

    Each with a range of its own. Where the attention stays in floating point, V alone, and K where
    nothing reads a V.

    Why: without a Q/DQ pair next to one of the slices, TensorRT-RTX 1.7.1 cuts the weights of the
    product of Q, K and V into three and multiplies in float16 (a kernel ``CastMulFc``, and three
    more to copy); with one it runs INT8. V's rounding errors are averaged over all positions.
    Source: measured
    """
    products = [
        node
        for node in draft.view.nodes
        if node.op_type == "MatMul" and not any(map(draft.view.is_constant, node.inputs))
    ]
    whole = set()  # layers next to one of whose slices a pair stands
    for node in products:
        for index in (0, 1):
            if draft.is_quantized(node, index):
                place, layer = _behind_slice(draft, node, index, _SLICES | {"Squeeze"})
                if place is not None:
                    draft.release(node, index)
            elif index and node.name not in draft.excluded and follows_softmax(draft.view, node):
                # behind a Squeeze the pair would stand at the product, where it has no effect
                place, layer = _behind_slice(draft, node, index, _SLICES)
            else:
                continue
            if place is not None:
                draft.quantize(place.node, place.index, own=True)
                whole.add(layer)
    for node in products:
        place, layer = _behind_slice(draft, node, 1, _SLICES)
        if place is not None and layer not in whole and node.name not in draft.excluded:
            draft.quantize(place.node, place.index, own=True)
            whole.add(layer)


def _behind_slice(draft: Draft, node: Node, index: int, ends: Set[str]) -> tuple[Use | None, str]:
    """What reads a slice of an INT8 layer's output that ends in this input, and the layer.

    Args:
        draft: the placement so far.
        node: a product of two activations.
        index: of its input.
        ends: operators that the reader stands behind.

    Returns:
        None and no name where there is no such slice.
    """
    view, name, passed = draft.view, node.inputs[index], list[Node]()
    while (maker := view.producer(name)) is not None and is_pass_through(view, maker):
        passed.append(maker)
        name = maker.inputs[0]
    layer = conv_partition(view, name)
    sliced = any(maker.op_type in _SLICES for maker in passed)
    if not sliced or layer is None or layer.name not in draft.layers:
        return None, ""
    count = next(n for n, maker in enumerate(passed) if maker.op_type in ends)
    place = Use(node=passed[count - 1], index=0) if count else Use(node=node, index=index)
    return place, layer.name
