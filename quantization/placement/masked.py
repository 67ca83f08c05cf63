"""Tensors whose places are masked with a number that is none: -inf, -1e9, float32's lowest.

A maximum throws them away, so what it makes has an ordinary range, and what it reads has none that
INT8 could take. ``F.pad(x, pads, value=-inf)`` and ``torch.where(mask, x, -inf)`` write them.
"""

from __future__ import annotations

import numpy as np

from graphs.operators import MIXING_OPS, POINTWISE_OPS, RANGE_KEEPING_OPS
from graphs.view import GraphView, Node

__all__ = ["discards_masks", "masks"]

_MASK = 1e4  # the least that exporters mask with; float16 ends at 65504
_DEPTH = 4  # (1 - mask) * -1e9, cast and unsqueezed, added to the values


def discards_masks(view: GraphView, node: Node) -> bool:
    """Whether ``node`` is a MaxPool of values some of which are masked."""
    if node.op_type != "MaxPool":
        return False
    tensor = node.inputs[0]
    while (maker := view.producer(tensor)) and maker.op_type in RANGE_KEEPING_OPS - {"Pad"}:
        tensor = maker.inputs[0]
    return masks(view, tensor)


def masks(view: GraphView, tensor: str) -> bool:
    """Whether ``tensor`` is what is added where values are to be masked: (1 - mask) * -1e9."""
    maker = view.producer(tensor)
    return maker is not None and _reads_mask(view, maker, _DEPTH)


def _reads_mask(view: GraphView, node: Node, depth: int) -> bool:
    """Whether a constant of this size is joined, written, or added to what ``node`` makes."""
    if node.op_type not in MIXING_OPS | POINTWISE_OPS | RANGE_KEEPING_OPS:
        return False
    for name in filter(None, node.inputs):
        value = view.constant(name)
        if value is not None:
            if value.dtype.kind == "f" and np.abs(value).max(initial=0) >= _MASK:
                return True
            continue
        maker = view.producer(name)
        if depth > 1 and maker is not None and _reads_mask(view, maker, depth - 1):
            return True
    return False
