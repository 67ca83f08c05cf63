"""What an Attention hides from its queries: masks, what comes later, what a window leaves out.

A query at position p (of the past and these together) sees the keys j with

    mask[p, j]   and   p - left_window_size <= j <= p + right_window_size,   <= p where it is causal

Scores of all others become so small that nothing is left of them beside any other. A query that
sees no key at all makes zeros: its result is multiplied by 0. That costs TensorRT-RTX 1.7.1 its one
kernel for the whole attention (8 kernels become 12), so it is written only where it can be: of
masks of their own for each query, or under a window or a causal mask. A mask for all queries of a
sample hides everything only from a sample that is padding altogether.
Source: https://onnx.ai/onnx/operators/onnx__Attention.html
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from graphs.walk import operator
from quantization.prepare.attention_steps import (
    MASK,
    PAST_KEY,
    Given,
    Sizes,
    given_int,
    read,
)
from quantization.prepare.writer import Steps

__all__ = ["hide"]

_NOTHING = -65504.0
"""Score of what is masked: no probability beside any other, and finite in float16, where a row that
is masked altogether would become NaN."""


@dataclass(frozen=True, kw_only=True)
class _Window:
    """How far before and behind a query keys are seen; None where there is no end."""

    left: int | None
    right: int | None

    @property
    def is_open(self) -> bool:
        return self.left is None and self.right is None


def hide(step: Steps, sizes: Sizes, given: Given, query: str, scores: str) -> tuple[str, str]:
    """Scores with what is hidden, and a factor of each query's result, (…, queries, 1).

    The factor is 0 where a query sees no key and 1 elsewhere; empty where each sees one.
    """
    window, mask = _window(given), read(step.node, MASK)
    boolean = mask if mask and step.writer.kind(mask) == TensorProto.BOOL else ""
    if boolean:
        scores = step("Where", boolean, scores, step.number("masked", _NOTHING))
    elif mask:
        scores = step("Add", scores, mask)
    if window.is_open:
        return scores, _sighted(step, boolean, "", None) if _by_query(step, boolean) else ""
    known = _known(sizes, window)
    if known is not None:
        hidden = step.number("causal", np.where(known, 0.0, _NOTHING))
        return step("Add", scores, hidden), _sighted(step, boolean, "", known)
    seen = _seen(step, window, query)
    hidden = step("Where", seen, step.number("seen", 0.0), step.number("causal", _NOTHING))
    scores = step("Add", scores, hidden)
    alone = bool(boolean) or (window.left is not None and _may_pass(step))
    return scores, _sighted(step, boolean, seen, None) if alone else ""


def _window(given: Given) -> _Window:
    left, right = (given_int(given, f"{side}_window_size", -1) for side in ("left", "right"))
    later = None if right < 0 else right
    causal = bool(given_int(given, "is_causal", 0))
    return _Window(left=None if left < 0 else left, right=0 if causal else later)


def _by_query(step: Steps, mask: str) -> bool:
    """Whether a mask may differ between the queries of a sample."""
    while (maker := step.writer.makers.get(mask)) is not None and operator(maker) == "Expand":
        mask = maker.input[0]
    return bool(mask) and (step.writer.rank(mask) or 0) > 1 and step.writer.size(mask, -2) != 1


def _may_pass(step: Steps) -> bool:
    """Whether a query may lie so far behind the last key that a window shows it none."""
    queries, keys = (step.writer.length(name, -2) for name in step.node.input[:2])
    return queries is None or queries != keys


def _known(sizes: Sizes, window: _Window) -> NDArray[np.bool_] | None:
    """Which keys each query sees, (queries, keys); None where a length is free."""
    if not sizes.queries or not sizes.seen or sizes.past is None:
        return None
    apart = np.arange(sizes.seen) - np.arange(sizes.queries)[:, None] - sizes.past
    before = np.True_ if window.right is None else apart <= window.right
    behind = np.True_ if window.left is None else apart >= -window.left
    return np.asarray(before & behind)


def _seen(step: Steps, window: _Window, query: str) -> str:
    """The same of free lengths, as a tensor."""
    zero, one = step.constant("zero", 0), step.constant("one", 1)

    def length(tensor: str, axis: int) -> str:
        return step("Squeeze", step("Shape", tensor, start=axis, end=axis + 1))

    positions = step("Range", zero, length(query, 2), one)
    key = step.node.input[1]
    keys = length(key, 1 if step.writer.rank(key) == 3 else 2)
    if past := read(step.node, PAST_KEY):
        earlier = length(past, 2)
        positions, keys = step("Add", positions, earlier), step("Add", keys, earlier)
    rows = step("Unsqueeze", positions, step.constant("column", [1]))
    columns = step("Range", zero, keys, one)

    def moved(by: int) -> str:
        return step("Add", rows, step.constant("moved", by)) if by else rows

    sides = []
    if window.right is not None:
        sides.append(step("LessOrEqual", columns, moved(window.right)))
    if window.left is not None:
        sides.append(step("GreaterOrEqual", columns, moved(-window.left)))
    return sides[0] if len(sides) == 1 else step("And", *sides)


def _sighted(step: Steps, mask: str, seen: str, known: NDArray[np.bool_] | None) -> str:
    """The factor of :func:`hide`, of a mask and what a window shows; empty where all are 1."""
    stored = step.writer.constants.get(mask)
    if not seen and (not mask or stored is not None):
        shown = np.True_ if stored is None else numpy_helper.to_array(stored)
        each = np.any(shown & (np.True_ if known is None else known), axis=-1, keepdims=True)
        return "" if each.all() else step.number("sighted", each)
    parts = [step("Cast", name, to=TensorProto.FLOAT) for name in (mask, seen) if name]
    if known is not None and not known.all():
        parts.append(step.number("shown", known))
    shown_keys = parts[0] if len(parts) == 1 else step("Mul", *parts)
    return step("ReduceMax", shown_keys, step.constant("keys", [-1]))
