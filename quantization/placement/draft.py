"""A placement being made: what the rules read and write."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from functools import cached_property

import onnx

from graphs.operators import CONTROL_OPS, SIZE_OPS, WEIGHTED_OPS
from graphs.view import GraphView, Node, Shape
from quantization.placement.batchless import batchless_shapes
from quantization.placement.result import (
    Attention,
    Floating,
    Placement,
    Profile,
    QuantizedInput,
    QuantizedWeight,
)
from quantization.placement.walk import joins_only_variables, sources
from quantization.placement.weights import channel_axis

__all__ = ["Draft"]

_LARGEST_AMAX = 1e30  # masks are float32's lowest, -3.4e38, whose sums and codes overflow


class Draft:
    """Layers still candidates for INT8, and the edges quantized so far.

    Args:
        view: the graph.
        excluded: names of nodes the user excluded.
        own_ranges: each tensor has a range of its own, that of probabilities is 1; else ranges are
            taken from above ops that keep them, and those of probabilities from samples.
        apart: names of Concats whose inputs keep scales of their own.
        lacking: operators that the runtime has no INT8 kernel for.
        attention: what becomes of the products of two activations around a Softmax.
        amax: ranges of tensors, where they are known.

    Attributes:
        view: the graph.
        layers: weighted layers that no rule has left in floating point, in graph order.
        excluded: names of nodes the user excluded.
        apart: names of Concats whose inputs keep scales of their own.
        lacking: operators that the runtime has no INT8 kernel for.
        attention: what becomes of the products of two activations around a Softmax.
        extra: tensors that need a range and get no Q/DQ pair.
    """

    def __init__(
        self,
        view: GraphView,
        excluded: frozenset[str] = frozenset(),
        *,
        own_ranges: bool = False,
        apart: frozenset[str] = frozenset(),
        lacking: frozenset[str] = frozenset(),
        attention: Attention = "auto",
        amax: Mapping[str, float] | None = None,
    ) -> None:
        self.view = view
        self.attention = attention
        self.lacking = lacking
        self.apart = apart
        self._own_ranges = own_ranges
        self._amax = amax or {}
        self.excluded = excluded
        self.layers: dict[str, Node] = {n.name: n for n in view.nodes if n.op_type in WEIGHTED_OPS}
        self.extra: set[str] = set()
        self._sources: dict[str, tuple[str, ...]] = {}
        self._floating: dict[str, Floating] = {}
        self._edges: dict[tuple[int, int], QuantizedInput] = {}
        self._weights: dict[tuple[int, int], QuantizedWeight] = {}
        self._groups: list[set[str]] = []

    @cached_property
    def unchanging(self) -> frozenset[str]:
        """Tensors whose values no sample changes: made of constants and sizes alone."""
        found: set[str] = set()
        for node in self.view.nodes:
            reads = [name for name in node.inputs if name and not self.view.is_constant(name)]
            # Control flow reads what its bodies capture, too; what reads nothing is random.
            derived = node.op_type not in CONTROL_OPS and any(node.inputs)
            if node.op_type in SIZE_OPS or (derived and found.issuperset(reads)):
                found.update(name for name in node.outputs if name)
        return frozenset(found)

    def leave(self, node: Node, rule: str, why: str) -> None:
        """Keep ``node`` in floating point."""
        self.layers.pop(node.name, None)
        entry = Floating(node=node.name, op_type=node.op_type, rule=rule, why=why)
        self._floating.setdefault(node.name, entry)

    def quantize(self, node: Node, index: int, *, own: bool = False) -> None:
        """Let ``node`` read input ``index`` through Q/DQ, unless it is excluded or not float32.

        Args:
            node: the reader.
            index: of its input.
            own: the tensor has a range of its own, whatever it is taken from.
        """
        tensor = node.inputs[index]
        if node.name in self.excluded or not self.is_float(tensor):
            return
        if self.view.shape(tensor) == ():  # TensorRT's Q does not read scalars
            return
        key = (node.position, index)
        if self.view.is_constant(tensor):
            self._weights[key] = QuantizedWeight(
                node=node.name,
                index=index,
                tensor=tensor,
                axis=channel_axis(self.view, node, index),
            )
            return
        above = (tensor,) if self._own_ranges or own else self.sources(tensor)
        joint = self.view.producer(above[0]) if len(above) == 1 else None
        one = len(above) == 1 and (joint is None or joint.name not in self.apart)
        observed = above[0] if one and self.is_float(above[0]) else tensor
        if self.overflows(tensor) is None:
            self._edges[key] = QuantizedInput(
                node=node.name, index=index, tensor=tensor, observed=observed
            )

    def overflows(self, tensor: str) -> float | None:
        """The range of ``tensor`` where it is known and holds no numbers, but a mask's."""
        amax = max((self._amax.get(name, 0.0) for name in self.sources(tensor)), default=0.0)
        return amax if amax > _LARGEST_AMAX else None

    def share_weight_scale(self, node: Node, index: int) -> None:
        """Give all of the constant at input ``index``, if it is quantized, one scale."""
        key = (node.position, index)
        if key in self._weights:
            self._weights[key] = dataclasses.replace(self._weights[key], axis=None)

    def sources(self, tensor: str) -> tuple[str, ...]:
        """The tensors whose values ``tensor`` consists of, and whose scale it takes."""
        return sources(self.view, tensor, self._sources, apart=self.apart)

    def joins(self, node: Node) -> bool:
        """Whether ``node`` is a Concat of variables that take one scale."""
        return joins_only_variables(self.view, node) and node.name not in self.apart

    def release(self, node: Node, index: int) -> None:
        """Let ``node`` read that activation as it is: a Q/DQ pair upstream serves it."""
        self._edges.pop((node.position, index), None)

    def size(self, tensor: str, axis: int) -> int | None:
        """A size of ``tensor``; known behind a free batch where the batch does not change it."""
        shape = self.view.shape(tensor) or ()
        if -len(shape) <= axis < len(shape) and shape[axis] is not None:
            return shape[axis]
        known = self._batchless.get(tensor, ())
        return known[axis] if -len(known) <= axis < len(known) else None

    @cached_property
    def _batchless(self) -> dict[str, Shape]:
        return batchless_shapes(self.view.model)

    def is_quantized(self, node: Node, index: int) -> bool:
        """Whether that input is read through Q/DQ."""
        return (node.position, index) in self._edges

    def is_float(self, tensor: str) -> bool:
        """Whether ``tensor`` is float32; unknown types count as float32, as in a checked Conv."""
        return self.view.element_type(tensor) in (
            onnx.TensorProto.FLOAT,
            onnx.TensorProto.UNDEFINED,
        )

    @property
    def edges(self) -> tuple[QuantizedInput, ...]:
        """Activation edges so far, in graph order."""
        return tuple(self._edges[key] for key in sorted(self._edges))

    def share(self, tensors: Iterable[str]) -> None:
        """Make the observed tensors among ``tensors`` take one scale."""
        group = set(tensors)
        apart = []
        for other in self._groups:
            if group & other:
                group |= other
            else:
                apart.append(other)
        self._groups = [*apart, group]

    def finish(self, profile: Profile) -> Placement:
        """The placement; groups keep only tensors whose range is used."""
        fixed = self._fixed_ranges()
        observed = {edge.observed for edge in self.edges} | self.extra
        groups = (tuple(sorted(group & observed)) for group in self._groups)
        return Placement(
            profile=profile,
            activations=self.edges,
            weights=tuple(self._weights[key] for key in sorted(self._weights)),
            int8_nodes=tuple(self.layers),
            shared=tuple(sorted(group for group in groups if len(group) > 1)),
            floating=tuple(
                self._floating[node.name] for node in self.view.nodes if node.name in self._floating
            ),
            fixed=fixed,
            extra=tuple(sorted(self.extra)),
        )

    def _fixed_ranges(self) -> dict[str, float]:
        """Softmax gives probabilities: amax is 1 whatever the samples, unless they are observed."""
        if not self._own_ranges:
            return {}
        observed = {edge.observed for edge in self.edges} | self.extra
        makers = ((name, self.view.producer(name)) for name in sorted(observed))
        return {name: 1.0 for name, node in makers if node and node.op_type == "Softmax"}
