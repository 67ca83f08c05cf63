"""What stands behind a layer and makes its quiet channels as loud as its loud ones.

A DCT, an STFT or another filter bank makes bands that are a thousand times apart, and a network
that reads them standardises each band by numbers that it has learned: (y - mean) / deviation. What
is next to nothing beside the loudest band is what is read then, and the layer's error has to be
told there. In front of other numbers for each channel it stays what it is.
"""

from __future__ import annotations

import numpy as np

from graphs.operators import CODE_COPYING_OPS, WEIGHTED_OPS
from graphs.view import GraphView, Node, Use

__all__ = ["standardisation_behind"]

_UNEVEN = 10.0  # largest of the factors by smallest: gammas of norms are nearer to each other
_MOVES = CODE_COPYING_OPS - {"MaxPool"} | {"GatherElements", "GatherND"}
_SHIFTS = ("Add", "Sub")


def standardisation_behind(view: GraphView, layer: Node) -> tuple[Node, ...]:
    """The nodes that alone follow ``layer``, up to the last with uneven factors of channels.

    Only what moves values, adds constants, or filters with constant weights stands between.
    """
    chain: list[Node] = []
    end, tensor = 0, layer.outputs[0]
    while (use := view.sole_use(tensor)) is not None and _is_linear(view, use):
        chain.append(use.node)
        if _is_uneven(view, use):
            end = len(chain)
        tensor = use.node.outputs[0]
    return tuple(chain[:end])


def _is_linear(view: GraphView, use: Use) -> bool:
    node = use.node
    others = [name for index, name in enumerate(node.inputs) if name and index != use.index]
    if sum(map(bool, node.outputs)) != 1 or not all(map(view.is_constant, others)):
        return False
    if node.op_type in ("Mul", "Div"):
        return node.op_type == "Mul" or use.index == 0
    return node.op_type in _MOVES or node.op_type in WEIGHTED_OPS or node.op_type in _SHIFTS


def _is_uneven(view: GraphView, use: Use) -> bool:
    if use.node.op_type not in ("Mul", "Div"):
        return False
    factors = view.constant(use.node.inputs[1 - use.index])
    sizes = np.abs(factors[factors != 0]) if factors is not None else np.ones(1)
    return sizes.size > 1 and float(sizes.max()) >= _UNEVEN * float(sizes.min())
