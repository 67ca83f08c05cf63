"""What computes on each value by itself, or joins, between Transposes does so in front of them.

Exporters of channels-last frameworks put one Transpose in front of each convolution and one behind
it, and an activation, a bias or a residual sum stands between the two. With T(x) for a Transpose

    f(T(x)) = T(f(x))        and        T⁻¹(T(f(x))) = f(x)

so the pair goes, the activation stands behind its layer, where every runtime computes it in the
layer's kernel, and a BatchNormalization written as Mul and Add can be folded. OpenVINO 2026.4.1
computes a convolution of sequences, Transpose, Relu, Transpose wrong itself (-1.5 dB, in float).

It is done where fewer Transposes are left: those between the first and the last of a region of such
operators all go, and what is read elsewhere takes one of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from graphs.edit import insert_nodes, set_attribute
from graphs.names import Names
from graphs.operators import POINTWISE_OPS
from graphs.walk import attributes, constants, nodes, operator, output_names, producers, readers

__all__ = ["lift_pointwise", "merge_transposes"]

Order = tuple[int, ...]
_LIFTED = POINTWISE_OPS | {"Concat"}


@dataclass(kw_only=True, eq=False)
class _Region:
    """Operators that read each other and Transposes of one order.

    Attributes:
        order: the axes of all Transposes in front.
        members: the operators, in graph order.
        sources: output of a Transpose → what it reads.
    """

    order: Order
    members: list[NodeProto] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def made(self) -> set[str]:
        """What the operators make."""
        return {node.output[0] for node in self.members}


def merge_transposes(graph: GraphProto) -> bool:
    """Let a Transpose of a Transpose do both: channels-last exporters write pairs that cancel."""
    makers = producers(graph)
    changed = False
    for node in nodes(graph):
        after = _turned(node)
        first = makers.get(node.input[0]) if after else None
        before = _turned(first)
        if first is None or after is None or before is None or len(before) != len(after):
            continue
        node.input[0] = first.input[0]
        set_attribute(node, "perm", [before[axis] for axis in after])
        changed = True
    return changed


def lift_pointwise(model: ModelProto) -> bool:
    """Let regions compute in front of their Transposes, where that leaves fewer.

    Args:
        model: changed in place; pairs of Transposes are left to :func:`merge_transposes`.

    Returns:
        Whether any was changed.
    """
    graph = model.graph
    read, outside = readers(graph), output_names(graph)
    worth = [region for region in _regions(graph) if _gain(region, read, outside) > 0]
    if worth:
        _lift(graph, {name: each for each in worth for name in each.made}, read, outside)
    return bool(worth)


def _regions(graph: GraphProto) -> list[_Region]:
    """All regions; an operator belongs to one at most."""
    known, makers = constants(graph), producers(graph)
    of: dict[str, _Region] = {}
    for node in nodes(graph):
        if operator(node) not in _LIFTED or len(node.output) != 1:
            continue
        computed = [name for name in node.input if name and name not in known]
        sources = {name: _turned(makers.get(name)) for name in computed}
        joined = list({id(of[name]): of[name] for name in computed if name in of}.values())
        orders = {sources[name] for name in computed if name not in of}
        orders |= {region.order for region in joined}
        order = orders.pop() if len(orders) == 1 else None
        wide = max((len(known[name].dims) for name in node.input if name in known), default=0)
        if order is None or wide > len(order):
            continue
        region = _united(joined, of) if joined else _Region(order=order)
        region.members.append(node)
        region.sources |= {n: makers[n].input[0] for n in computed if n not in of}
        of[node.output[0]] = region
    return list({id(region): region for region in of.values()}.values())


def _turned(node: NodeProto | None) -> Order | None:
    """The order of a Transpose's axes; None where it is none, or none is said."""
    if node is None or operator(node) != "Transpose":
        return None
    order = tuple(attributes(node).get("perm", ()))
    return order if order and sorted(order) == list(range(len(order))) else None


def _united(joined: Sequence[_Region], of: dict[str, _Region]) -> _Region:
    """Regions that an operator reads together become the first of them."""
    first, *others = joined
    for other in others:
        first.members += other.members
        first.sources |= other.sources
        of.update(dict.fromkeys(other.made, first))
    return first


def _gain(region: _Region, read: Mapping[str, list[NodeProto]], outside: set[str]) -> int:
    """How many Transposes go, less those that come."""
    made = region.made
    gone = sum(
        name not in outside and all(node.output[0] in made for node in read[name])
        for name in region.sources
    )
    for name in made:
        others = [node for node in read.get(name, ()) if node.output[0] not in made]
        gone += sum(_turned(node) == _inverse(region.order) for node in others)
        gone -= name in outside or any(_turned(node) is None for node in others)
    return gone


def _lift(
    graph: GraphProto,
    of: Mapping[str, _Region],
    read: Mapping[str, list[NodeProto]],
    outside: set[str],
) -> None:
    """Compute on what the Transposes read, and transpose what is read outside of a region.

    Args:
        graph: changed in place.
        of: what an operator makes → its region.
        read: tensor → its readers.
        outside: the outputs of the graph.
    """
    names, known = Names(graph), constants(graph)
    moved, behind = dict[str, str](), dict[int, list[NodeProto]]()
    for position, node in enumerate(nodes(graph)):
        name = node.output[0]
        region = of.get(name)
        if region is None:
            continue
        elsewhere = any(of.get(other.output[0]) is not region for other in read.get(name, ()))
        for index, tensor in enumerate(node.input):
            if tensor not in known:
                node.input[index] = region.sources.get(tensor, moved.get(tensor, tensor))
            elif np.prod(known[tensor].dims) > 1:
                node.input[index] = names.tensor(f"{tensor}//before")
                values = _turned_back(known[tensor], region.order)
                graph.initializer.append(numpy_helper.from_array(values, node.input[index]))
        if operator(node) == "Concat":
            set_attribute(node, "axis", region.order[attributes(node)["axis"]])
        moved[name] = node.output[0] = names.tensor(f"{name}//before")
        if name in outside or elsewhere:
            step = names.node("Transpose", [moved[name]], [name], wanted=name, perm=region.order)
            behind[position + 1] = [step]
    insert_nodes(graph, behind)


def _inverse(order: Order) -> Order:
    return tuple(int(axis) for axis in np.argsort(order))


def _turned_back(tensor: TensorProto, order: Order) -> NDArray[Any]:
    """A constant beside a tensor that is transposed no more."""
    values = numpy_helper.to_array(tensor)
    wide = values.reshape((1,) * (len(order) - values.ndim) + values.shape)
    return np.ascontiguousarray(wide.transpose(_inverse(order)))
