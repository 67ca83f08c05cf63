"""Which channels of which tensors scale together: a ReLU's with its input's, a residual sum's all.

Every channel of every activation gets a variable. Ops that hand a positive factor through unite
variables: ReLU and pooling channel by channel, a residual Add those of both inputs and the output,
Concat and Pad those they copy. Convolutions and products leave input and output free of each
other: their weights take any factor on either side. Everything else (Sigmoid, Clip, Softmax,
network inputs and outputs, ...) pins its variables to 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.layer_matrix import LayerMatrix, layer_matrix
from graphs.operators import SCALE_KEEPING_OPS, WEIGHTED_OPS
from graphs.view import GraphView, Node

__all__ = ["ChannelGroups"]

Indices = NDArray[np.int64]


class ChannelGroups:
    """The variables of a prepared graph."""

    def __init__(self, view: GraphView) -> None:
        self._view = view
        self._starts: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        total = 1  # variable 0 is the pinned one
        for name in (*view.inputs, *(o for node in view.nodes for o in node.outputs if o)):
            shape = view.shape(name)
            if not view.is_constant(name) and shape and len(shape) > 1 and shape[1]:
                self._starts[name], self._sizes[name] = total, int(shape[1])
                total += int(shape[1])
        self._parents = np.arange(total)
        self._layers: list[Node] = []
        for name in (*view.inputs, *view.read_outside):
            self._pin(name)
        for node in view.nodes:
            if not view.is_constant(node.outputs[0]):
                self._visit(node)
        self._roots = np.array([self._find(number) for number in range(total)])

    def __contains__(self, tensor: str) -> bool:
        return tensor in self._starts

    @property
    def count(self) -> int:
        """How many variables there are; number 0 is pinned."""
        return len(self._roots)

    @property
    def layers(self) -> Iterator[LayerMatrix]:
        """The layers whose weights may take factors on both sides, one weight at a time."""
        found = (layer_matrix(self._view, node) for node in self._layers)
        return (layer for layer in found if layer is not None)

    def variables(self, tensor: str) -> Indices:
        """The variable of each channel, (C,); 0 where it is pinned."""
        start = self._starts[tensor]
        roots = self._roots[start : start + self._sizes[tensor]]
        return np.where(roots == self._roots[0], 0, roots)

    def components(self, tensors: Sequence[str]) -> list[list[str]]:
        """The tensors in sets that share variables; those with none free are left out."""
        owner: dict[int, int] = {}
        sets: list[list[str]] = []
        for name in tensors:
            free = {int(v) for v in self.variables(name) if v}
            touched = sorted({owner[v] for v in free if v in owner})
            if not free:
                continue
            merged = [member for number in touched for member in sets[number]]
            for number in touched:
                sets[number] = []
            sets.append([*merged, name])
            for member in sets[-1]:
                owner.update({int(v): len(sets) - 1 for v in self.variables(member) if v})
        return [members for members in sets if members]

    def _visit(self, node: Node) -> None:
        output = node.outputs[0]
        variable = [name for name in node.inputs if name and not self._view.is_constant(name)]
        if node.op_type in WEIGHTED_OPS and self._is_layer(node):
            return
        same = all(self._sizes.get(name) == self._sizes.get(output) for name in variable)
        known = output in self._sizes and all(name in self._sizes for name in variable)
        if known and same and self._keeps_channels(node, variable):
            for name in variable:
                self._unite(name, output)
        elif known and node.op_type == "Concat" and self._joins_channels(node, variable):
            offset = 0
            for name in variable:
                self._unite(name, output, offset=offset)
                offset += self._sizes[name]
        elif known and (start := self._padded_start(node)) is not None:
            self._unite(node.inputs[0], output, offset=start)
        else:
            self._pin_all(node)

    def _is_layer(self, node: Node) -> bool:
        layer = layer_matrix(self._view, node)
        data = node.inputs[0]
        if layer is None or data not in self._sizes or node.outputs[0] not in self._sizes:
            return False
        bias = node.inputs[2] if len(node.inputs) > 2 else ""
        flat = layer.is_conv or len(self._view.shape(data) or ()) == 2
        if not flat or (bias and self._view.constant(bias) is None):
            return False
        self._layers.append(node)
        return True

    def _keeps_channels(self, node: Node, variable: Sequence[str]) -> bool:
        if node.op_type == "PRelu":
            return variable == [node.inputs[0]]
        if node.op_type == "Add":
            # A constant summand would have to be scaled too.
            return len(variable) == 2 and all(
                self._view.shape(name) == self._view.shape(node.outputs[0]) for name in variable
            )
        if node.op_type == "Flatten":
            shape = self._view.shape(node.inputs[0]) or ()
            return node.integer("axis", 1) == 1 and all(dim == 1 for dim in shape[2:])
        return node.op_type in SCALE_KEEPING_OPS and len([o for o in node.outputs if o]) == 1

    def _joins_channels(self, node: Node, variable: Sequence[str]) -> bool:
        return node.integer("axis", 0) == 1 and len(variable) == len(node.inputs)

    def _padded_start(self, node: Node) -> int | None:
        """Where a zero-padding puts channel 0; None for other paddings and other ops."""
        if node.op_type != "Pad":
            return None
        rank = len(self._view.shape(node.inputs[0]) or ())
        pads = self._view.constant(node.inputs[1]) if len(node.inputs) > 1 else None
        value = node.inputs[2] if len(node.inputs) > 2 else ""
        zero = not value or not np.any(self._constant(value))
        constant = node.text("mode", "constant") == "constant" and len(node.inputs) < 4
        if pads is None or pads.size != 2 * rank or not zero or not constant:
            return None
        return int(pads[1]) if pads[1] >= 0 and pads[rank + 1] >= 0 else None

    def _constant(self, name: str) -> NDArray[Any]:
        value = self._view.constant(name)
        return np.ones(1) if value is None else value

    def _pin_all(self, node: Node) -> None:
        for name in (*node.inputs, *node.outputs):
            self._pin(name)

    def _pin(self, tensor: str) -> None:
        start = self._starts.get(tensor)
        if start is not None:
            for number in range(start, start + self._sizes[tensor]):
                self._join(number, 0)

    def _unite(self, small: str, large: str, *, offset: int = 0) -> None:
        """Channel i of ``small`` is channel i + offset of ``large``."""
        for number in range(self._sizes[small]):
            self._join(self._starts[small] + number, self._starts[large] + offset + number)

    def _join(self, one: int, other: int) -> None:
        first, second = self._find(one), self._find(other)
        # The pinned variable stays the root of its set.
        self._parents[max(first, second)] = min(first, second)

    def _find(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = int(self._parents[number])
        return number
