"""Two copies of a network run side by side, node by node: one exact, one as INT8 makes it.

Every INT8 layer sees what the layers before it, already quantized and corrected, hand it. So each
range is chosen, each weight rounded and each bias corrected for the input it will really get, in
one pass over the graph: the cost is two forward passes and the algebra of the layers.

What is chosen (indices, masks, the boxes that NonMaxSuppression keeps) the exact copy chooses for
both: the errors of a layer behind are those of the same box.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import DataError
from artefacts.memory import give_back_memory
from artefacts.threads import single_threaded_products
from graphs.operators import WEIGHTED_OPS
from graphs.view import GraphView, Node
from graphs.walk import reads
from quantization.improve.walk.bias import bias_shift, channel_axis
from quantization.improve.walk.grid import Grid
from quantization.improve.walk.one_node import OneNode
from quantization.improve.walk.sample_arrays import Memory, SampleArrays
from quantization.measure.execution import Arrays, Load, load_node

__all__ = ["Decision", "FloatAndInt8", "LayerVisit", "Values", "can_walk"]

_NODES_A_TRIM = 25  # after each it would cost a tenth of the time

Array = NDArray[Any]
Decision = tuple[Mapping[int, Grid], Mapping[str, Array]]
Values = dict[str, SampleArrays]
"""Tensor → one array a sample."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerVisit:
    """What is known when the walk reaches a node.

    Attributes:
        node: the node.
        exact: float value of each of its inputs, one array a sample.
        actual: value of each input in the INT8 copy, before this node's own Q/DQ.
    """

    node: Node
    exact: Mapping[str, Sequence[Array]]
    actual: Mapping[str, Sequence[Array]]


@dataclass(kw_only=True, eq=False)
class FloatAndInt8:
    """The two copies on their way through a graph.

    Attributes:
        view: the prepared graph.
        samples: feeds of the graph's inputs, one sample each.
        correct: whether layers get their mean error off their bias.
        load: runs a model of one node.
        shifts: node name → what its bias gains; grows during the walk.
        exact: float tensor → its values; those that are still to be read.
        actual: the same in the INT8 copy.
        memory: for them.
    """

    view: GraphView
    samples: Sequence[Arrays]
    correct: bool
    load: Load = load_node
    shifts: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    exact: Values = field(default_factory=dict)
    actual: Values = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        if not self.samples:
            raise DataError("0 samples were given, expected at least 1; give calibration data")
        for name in self.view.inputs:
            fed = SampleArrays.shared(sample[name] for sample in self.samples)
            self.exact[name] = self.actual[name] = fed
        self._produced = {*self.view.inputs, *(o for n in self.view.nodes for o in n.outputs)}
        self._unread = {
            name: len(self.view.uses(name))
            for node in self.view.nodes
            for name in (*node.inputs, *node.outputs)
        }

    def walk(
        self,
        decide: Callable[[LayerVisit], Decision],
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Visit every node in order.

        Args:
            decide: given a visit, the grid of each input that goes through Q/DQ and the constants
                that the INT8 copy reads instead of its own.
            progress: called with nodes done and their number.
        """
        live = self.view.computed
        with single_threaded_products():
            for number, node in enumerate(live, start=1):
                self._step(node, decide)
                if number % _NODES_A_TRIM == 0:
                    give_back_memory()
                if progress is not None:
                    progress(number, len(live))

    def _step(self, node: Node, decide: Callable[[LayerVisit], Decision]) -> None:
        names = self._variable_inputs(node)
        read = [{name: values[name] for name in names} for values in (self.exact, self.actual)]
        decision = decide(LayerVisit(node=node, exact=read[0], actual=read[1]))
        exact, actual = self._both(node, read[0], read[1], decision, self._last_read(node))
        if exact is not actual and self.correct and _has_constant(self.view, node):
            self._take_off_error(node, exact, actual)
        if not names:  # computed of constants alone: the same for every sample
            exact, actual = (_for_each(found, len(self.samples)) for found in (exact, actual))
        self.exact.update(exact)
        self.actual.update(
            {n: values if _alike(exact[n], values) else exact[n] for n, values in actual.items()}
        )
        self._forget(node.outputs)  # what is computed and never read

    def _both(
        self, node: Node, exact: Values, actual: Values, decision: Decision, spent: Collection[str]
    ) -> tuple[Values, Values]:
        """What the node makes in each copy: one session for both, unless INT8 changes the node.

        An input that is read for the last time goes sample by sample, as its output comes.
        """
        grids, constants = decision
        own = [exact[name] for name in spent if exact[name] is not actual[name]]
        last = [actual[name] for name in spent]
        node_of = partial(OneNode, self.view, self.load, node, memory=self.memory)
        if grids or constants:  # one after the other: a large weight is not loaded twice
            made = node_of()(exact, spent=own)
            return made, node_of(grids=grids, constants=constants)(actual, spent=last)
        run = node_of()
        if all(exact[name] is actual[name] for name in exact):
            made = run(exact, spent=last)
            return made, made
        return run(exact, spent=own), run(actual, spent=last)

    def _variable_inputs(self, node: Node) -> list[str]:
        names = [n for n in dict.fromkeys(reads(node.proto)) if not self.view.is_constant(n)]
        return [name for name in names if name in self._produced]

    def _take_off_error(self, node: Node, exact: Values, actual: Values) -> None:
        output, axis = node.outputs[0], channel_axis(node)
        values = actual[output]
        shift = bias_shift(exact[output], values, axis=axis)
        self.shifts[node.name] = shift
        shape = [1] * values[0].ndim
        shape[axis] = -1
        added = shift.reshape(shape).astype(values[0].dtype)
        for number, value in enumerate(values):
            values.replace(number, value + added)

    def _last_read(self, node: Node) -> list[str]:
        """The inputs that no later node reads, which are forgotten but by whoever holds them."""
        for name in node.inputs:
            if name in self._unread:
                self._unread[name] -= 1
        return self._forget(node.inputs)

    def _forget(self, names: Sequence[str]) -> list[str]:
        """Drop those that no node will read."""
        found = []
        for name in dict.fromkeys(names):
            kept = name in self.view.read_outside or self._unread.get(name, 1) > 0
            if not kept and name in self.exact:
                del self.exact[name], self.actual[name]
                found.append(name)
        return found


def _for_each(found: Values, count: int) -> Values:
    """What no sample changes, as a value of every sample."""
    return {n: SampleArrays.shared([x[0]] * count) for n, x in found.items() if len(x)}


def _alike(exact: SampleArrays, actual: SampleArrays) -> bool:
    """Whether values differ by errors: floats of equal shapes."""
    pairs = zip(exact.kinds, actual.kinds, strict=True)
    return all(a == e and a[0] == "f" for e, a in pairs)


def can_walk(view: GraphView) -> bool:
    """Whether all that the nodes hand on are tensors; sequences only pass inside bodies."""
    return not any("Sequence" in node.op_type or "Optional" in node.op_type for node in view.nodes)


def _has_constant(view: GraphView, node: Node) -> bool:
    """Whether it is a layer with a constant weight of output channels and no computed bias."""
    if node.op_type not in WEIGHTED_OPS:
        return False
    weight = view.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if weight is None or weight.ndim < 2:  # of a vector, the product has no axis of channels
        return False
    return len(node.inputs) < 3 or not node.inputs[2] or view.constant(node.inputs[2]) is not None
