"""What placement decides: the edges and weights that become INT8, and the layers that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import onnx

from graphs.macs import work
from graphs.view import GraphView

__all__ = [
    "ATTENTIONS",
    "Attention",
    "Floating",
    "Placement",
    "Profile",
    "QuantizedInput",
    "QuantizedWeight",
]

Profile = Literal["tensorrt", "cpu", "dla"]
Attention = Literal["auto", "int8", "float"]
"""What becomes of the two products of an attention; auto is the rule of the target."""
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)


@dataclass(frozen=True, kw_only=True)
class QuantizedInput:
    """An activation that a node reads through a Q/DQ pair.

    Attributes:
        node: name of the reading node, as ``GraphView`` names it.
        index: which of its inputs.
        tensor: the activation read there.
        observed: the tensor whose range gives the scale: ``tensor`` itself, or the one above it
            when only ops that keep the range (Reshape, MaxPool, ...) lie between.
    """

    node: str
    index: int
    tensor: str
    observed: str


@dataclass(frozen=True, kw_only=True)
class QuantizedWeight:
    """A constant that a node reads as INT8.

    Attributes:
        node: name of the reading node.
        index: which of its inputs.
        tensor: the constant.
        axis: the output channel axis of the constant; None for one scale per tensor.
        bounded: its codes keep sums of two products within 16 bits, see ``graphs.pairs``.
    """

    node: str
    index: int
    tensor: str
    axis: int | None
    bounded: bool = False


@dataclass(frozen=True, kw_only=True)
class Floating:
    """A quantizable layer that stays in floating point, and why."""

    node: str
    op_type: str
    rule: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where Q/DQ pairs go in one graph.

    Attributes:
        profile: whose rules placed them.
        activations: the activation edges, in graph order.
        weights: the constants, in graph order.
        int8_nodes: names of the weighted layers that become INT8, in graph order.
        shared: groups of observed tensors that take one scale; the largest amax wins.
        floating: quantizable layers left in floating point.
        fixed: amax of tensors whose range is known without data, e.g. Softmax outputs: 1.0.
        extra: tensors that need a range but no Q/DQ pair (DLA: network outputs).
        unsigned: observed tensors that are uint8 with zero point 0, sorted (cpu profile only).
        joined: what a Concat makes whose branches, or those of one behind it, are very different →
            the tensors of known range that it consists of; the largest of their ranges is its.
    """

    profile: Profile
    activations: tuple[QuantizedInput, ...]
    weights: tuple[QuantizedWeight, ...]
    int8_nodes: tuple[str, ...] = ()
    shared: tuple[tuple[str, ...], ...] = ()
    floating: tuple[Floating, ...] = ()
    fixed: Mapping[str, float] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    unsigned: tuple[str, ...] = ()
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Activations whose range must be observed, sorted."""
        observed = {edge.observed for edge in self.activations} | set(self.extra)
        return tuple(sorted(observed - set(self.fixed)))

    def int8_mac_share(
        self, model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]] | None = None
    ) -> float:
        """Share of the network's multiply-accumulates that run in INT8, 0 to 1.

        Args:
            model: the model that was placed.
            shapes: of inputs whose axes are free, to count by.
        """
        view = GraphView(model, shapes)
        found = {node.name: work(view, node) for node in view.nodes}
        total = sum(found.values())
        return sum(found.get(name, 0) for name in self.int8_nodes) / total if total else 0.0
