"""Who reads a tensor behind a MaxPool: what that does not choose, nobody sees.

A MaxPool of codes is the codes of a MaxPool, so CPUs have Q/DQ in front of it. Most of the values
there are small, and go no further: a range that suits them cuts off those that do. Seen as a
reader itself, the MaxPool of a face detector's PReLU took a third off two ranges and 4 dB off the
network (MTCNN's refining net).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.view import GraphView, Node
from quantization.improve.walk.one_node import OneNode
from quantization.measure.execution import load_node

__all__ = ["Reading", "readings"]

Array = NDArray[Any]


def _as_it_is(values: Array) -> Array:
    return values


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """How one node reads a tensor.

    Attributes:
        node: the node.
        index: of its input.
        pooled: of the tensor in one sample, what that input holds.
    """

    node: Node
    index: int
    pooled: Callable[[Array], Array] = _as_it_is


def readings(view: GraphView, node: Node, index: int) -> list[Reading]:
    """The node itself, or those that read what it pools, behind other such pools, too.

    Args:
        view: the graph.
        node: reads the tensor.
        index: of its input that is the tensor.
    """
    direct = [Reading(node=node, index=index)]
    if node.op_type != "MaxPool":
        return direct
    pool = _runs(view, node)
    behind = [
        Reading(node=read.node, index=read.index, pooled=_after(pool, read.pooled))
        for use in view.uses(node.outputs[0])
        for read in readings(view, use.node, use.index)
    ]
    return behind or direct


def _runs(view: GraphView, node: Node) -> Callable[[Array], Array]:
    run = OneNode(view, load_node, node)
    source, result = node.inputs[0], node.outputs[0]
    return lambda values: np.asarray(run({source: [values]})[result][0])


def _after(
    first: Callable[[Array], Array], second: Callable[[Array], Array]
) -> Callable[[Array], Array]:
    return lambda values: second(first(values))
