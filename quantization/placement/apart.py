"""Concats whose branches keep scales of their own, because one would erase the smaller.

One scale costs the smaller branch log2(ratio) of its 8 bits wherever else it is read: a U-Net's
skip that an Add or a Conv reads beside the Concat. What reads the joined tensor has one scale for
all of it in any case.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from graphs.view import GraphView, Node
from quantization.placement.result import Placement
from quantization.placement.walk import above, joins_only_variables, sources

__all__ = ["ERASING_RATIO", "LARGEST_RATIO", "joined_tensors", "unequal_joins"]

LARGEST_RATIO = 4.0
"""Ranges further apart take no one scale.

Measured on a U-Net's level, dB of what reads the joined tensor and of what reads the skip alone,
one scale → scales of their own (no improvement, min-max): ratio 1.3: 30.1 / 34.2 → 30.3 / 34.7;
2.3: 29.0 / 32.2 → 30.3 / 34.7; 4.5: 26.2 / 28.0 → 30.2 / 34.8; 8: 20.6 / 22.2 → 29.6 / 34.4;
20: 15.6 / 16.5 → 29.7 / 34.6; 90: 5.3 / 5.0 → 29.9 / 34.9. TensorRT-RTX compiles 21 kernels either
way, one of which reads float; OpenVINO takes 2 to 4 % longer. In the networks at hand, with
YOLOX-nano, the ratio is 4.1 at most and 1.9 in the middle.
"""
ERASING_RATIO = 12.0
"""Ranges so far apart are parted where the smaller is read through the Concat alone, too.

What is joined can then be scaled channel by channel, or what reads it stay in float. Two inputs of
a convolution, joined, placed for the cpu and improved, dB with one scale → parted: ratio 4.5:
29.0 → 29.8; 8: 24.2 → 25.4; 16: 18.4 → 36.4; 30: 13.4 → 36.4.
"""


def unequal_joins(
    view: GraphView, placement: Placement, amax: Mapping[str, float], apart: Collection[str]
) -> frozenset[str]:
    """Names of Concats to part beside ``apart``; one of each group, none where all fit.

    Args:
        view: the placed graph.
        placement: of it.
        amax: range of each observed tensor; tensors may be missing.
        apart: names of the Concats that are parted.
    """
    read = {e.observed for e in placement.activations if e.node not in _joins(view)}
    found = set()
    for group in placement.shared:
        largest = max(amax.get(name, 0.0) for name in group)
        bound = {n: LARGEST_RATIO if n in read else ERASING_RATIO for n in group}
        if any(0 < amax.get(name, 0.0) * ratio < largest for name, ratio in bound.items()):
            known = {name: amax[name] for name in group if name in amax}
            ratios = {
                node.name: _ratio(view, node, known, apart)
                for node in _joins(view).values()
                if node.name not in apart
            }
            worst = max(ratios, key=lambda name: ratios[name], default=None)
            if worst is not None and ratios[worst] > 1.0:
                found.add(worst)
    return frozenset(found)


def joined_tensors(
    view: GraphView, placement: Placement, apart: Collection[str], known: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """What Concats make, and the tensors of known range that it consists of.

    Of each parted Concat, and of those whose result has a scale now because another was parted: a
    MaxPool between the two reads float, and the pair of the first has moved down to its readers.

    Args:
        view: the placed graph.
        placement: of it.
        apart: names of the Concats that are parted.
        known: tensors whose range is known.
    """
    made = [node.outputs[0] for node in view.nodes if node.name in apart]
    new = [name for name in placement.tensors if name not in known] if apart else []
    return {name: _cover(view, name, known) for name in (*made, *new)}


def _cover(view: GraphView, tensor: str, known: Collection[str]) -> tuple[str, ...]:
    """The nearest tensors of known range; nothing where a part has none."""
    found: dict[str, None] = {}
    pending = [tensor]
    while pending:
        name = pending.pop()
        if name in known:
            found[name] = None
        elif parts := above(view, name):
            pending += parts
        else:
            return ()
    return tuple(sorted(found))


def _joins(view: GraphView) -> dict[str, Node]:
    return {node.name: node for node in view.nodes if joins_only_variables(view, node)}


def _ratio(view: GraphView, node: Node, amax: Mapping[str, float], apart: Collection[str]) -> float:
    """Largest range of what a Concat makes, or of its branches, over that of the smallest branch.

    Args:
        view: the graph.
        node: the Concat.
        amax: of the tensors of one group.
        apart: names of the Concats that are parted.
    """
    parts = [sources(view, name, apart=apart) for name in node.inputs]
    branches = [max(amax[n] for n in names if n in amax) for names in parts if {*names} & {*amax}]
    made = node.outputs[0]
    whole = [value for name, value in amax.items() if _consists_of(view, name, made)]
    smallest = min(branches, default=0.0)
    return max(*branches, *whole, 0.0) / smallest if smallest > 0 else 0.0


def _consists_of(view: GraphView, tensor: str, part: str) -> bool:
    """Whether ``part`` is ``tensor`` or lies above it through ops that only move values."""
    pending, seen = [tensor], {tensor}
    while pending:
        name = pending.pop()
        if name == part:
            return True
        new = set(above(view, name)) - seen
        seen |= new
        pending += new
    return False
