"""Who reads a tensor: what computes on it, behind what only moves its numbers.

Where a pair of Q and DQ moves for nothing, it stands before the move. There a MaxPool sees many
values that it does not hand on, and a range that suits them cuts off those that it does: MTCNN's
refining net lost 4 dB by two such ranges. A Reshape or Transpose hands all on, but only the layer
behind says what an error of each is worth: 4 dB of CREPE's smallest net.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.qdq import copies
from graphs.view import GraphView, Node
from quantization.improve.walk.one_node import OneNode
from quantization.measure.execution import load_node

__all__ = ["Reading", "moves_alone", "readings"]

Array = NDArray[Any]


def _as_it_is(values: Array) -> Array:
    return values


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """How one node reads a tensor.

    Attributes:
        node: the node.
        index: of its input.
        moved: of the tensor in one sample, what that input holds.
    """

    node: Node
    index: int
    moved: Callable[[Array], Array] = _as_it_is


def readings(
    view: GraphView, node: Node, index: int, moves: Callable[[Node], bool]
) -> list[Reading]:
    """The node itself, or those that read what it moves, behind other moves, too.

    Args:
        view: the graph.
        node: reads the tensor.
        index: of its input that is the tensor.
        moves: which operators are followed; what takes something else that is computed, too,
            cannot tell what it moved.
    """
    direct = [Reading(node=node, index=index)]
    if not moves(node):
        return direct
    run, source = OneNode(view, load_node, node), node.inputs[index]
    behind = [
        replace(read, moved=_moved_on(run, source, name, read.moved))
        for name in node.outputs
        for use in view.uses(name)
        for read in readings(view, use.node, use.index, moves)
    ]
    return behind or direct


def moves_alone(view: GraphView, node: Node) -> bool:
    """Whether a node moves numbers of one tensor, to places that are known beforehand."""
    computed = [name for name in node.inputs if name and not view.is_constant(name)]
    return copies(node) and len(computed) == 1


def _moved_on(
    run: OneNode, source: str, output: str, then: Callable[[Array], Array]
) -> Callable[[Array], Array]:
    """What a node makes of one input, moved by those behind it."""
    return lambda values: then(np.asarray(run({source: [values]})[output][0]))
