"""Tensors whose places are masked with a number that is none: -inf, -1e9, float32's lowest.

A maximum throws them away, so what it makes has an ordinary range, and what it reads has none that
INT8 could take. ``F.pad(x, pads, value=-inf)`` and ``torch.where(mask, x, -inf)`` write them.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from graphs.operators import MIXING_OPS, POINTWISE_OPS, RANGE_KEEPING_OPS
from graphs.view import GraphView, Node

__all__ = ["discards_masks", "is_masked"]

_MASK = 1e4  # the least that exporters mask with; float16 ends at 65504
_KEEPS = RANGE_KEEPING_OPS - {"MaxPool"}
_MOVES = _KEEPS - {"Pad"}
_HANDS_ON = MIXING_OPS | POINTWISE_OPS | _KEEPS
_BOUNDS = ("Clip", "Max", "Min")  # what they limit by is seldom there
_DEPTH = 4  # (1 - mask) * -1e9, cast and unsqueezed, added to the values


def discards_masks(view: GraphView, node: Node) -> bool:
    """Whether ``node`` is a MaxPool of values some of which are masked."""
    return node.op_type == "MaxPool" and is_masked(view, node.inputs[0])


def is_masked(view: GraphView, tensor: str) -> bool:
    """Whether places of ``tensor`` are masked, or it is the mask to add, (1 - mask) * -1e9."""
    while (maker := view.producer(tensor)) and maker.op_type in _MOVES:
        tensor = maker.inputs[0]
    return maker is not None and _reads_mask(view, maker, _DEPTH)


def _reads_mask(view: GraphView, node: Node, depth: int) -> bool:
    """Whether a constant of this size is joined, written, or added to what ``node`` makes."""
    if node.op_type not in _HANDS_ON:
        return False
    for name in filter(None, node.inputs):
        value = view.constant(name)
        if value is not None:
            if node.op_type not in _BOUNDS and _is_large(value):
                return True
            continue
        maker = view.producer(name)
        if depth > 1 and maker is not None and _reads_mask(view, maker, depth - 1):
            return True
    return False


def _is_large(value: NDArray[Any]) -> bool:
    # Without abs, which would be a second copy of a table of words.
    found = max(value.max(initial=0), -value.min(initial=0)) if value.dtype.kind == "f" else 0
    return bool(found >= _MASK)
