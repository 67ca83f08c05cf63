"""Two copies of a network run side by side, node by node: one exact, one as INT8 makes it.

Every INT8 layer sees what the layers before it, already quantized and corrected, hand it. So each
range is chosen, each weight rounded and each bias corrected for the input it will really get, in
one pass over the graph: the cost is two forward passes and the algebra of the layers.

What is chosen (indices, masks, the boxes that NonMaxSuppression keeps) the exact copy chooses for
both: the errors of a layer behind are those of the same box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from artefacts.errors import DataError
from graphs.operators import WEIGHTED_OPS
from graphs.view import GraphView, Node
from graphs.walk import nodes, subgraphs
from quantization.improve.bias import bias_shift, channel_axis
from quantization.improve.range_choice import Grid
from quantization.measure.execution import Arrays, Load, Run

__all__ = ["Decision", "FloatAndInt8", "LayerVisit", "can_walk", "live_bytes", "reads", "run_node"]

Array = NDArray[Any]
Decision = tuple[Mapping[int, Grid], Mapping[str, Array]]


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
        load: runs a model.
        samples: feeds of the graph's inputs, one sample each.
        correct: whether layers get their mean error off their bias.
        shifts: node name → what its bias gains; grows during the walk.
    """

    view: GraphView
    load: Load
    samples: Sequence[Arrays]
    correct: bool
    shifts: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    exact: dict[str, Sequence[Array]] = field(default_factory=dict)
    actual: dict[str, Sequence[Array]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.samples:
            raise DataError("0 samples were given, expected at least 1; give calibration data")
        for name in self.view.inputs:
            self.exact[name] = self.actual[name] = [sample[name] for sample in self.samples]
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
        for number, node in enumerate(live, start=1):
            self._step(node, decide)
            self._forget(node)
            if progress is not None:
                progress(number, len(live))

    def _step(self, node: Node, decide: Callable[[LayerVisit], Decision]) -> None:
        names = self._variable_inputs(node)
        visit = LayerVisit(
            node=node,
            exact={name: self.exact[name] for name in names},
            actual={name: self.actual[name] for name in names},
        )
        exact, actual = self._both(visit, *decide(visit))
        if exact is not actual and self.correct and _has_constant(self.view, node):
            actual = {node.outputs[0]: self._corrected(node, exact, actual)}
        if not names:  # computed of constants alone: the same for every sample
            exact, actual = (_for_each(found, len(self.samples)) for found in (exact, actual))
        self.exact.update(exact)
        self.actual.update(
            {n: values if _alike(exact[n], values) else exact[n] for n, values in actual.items()}
        )

    def _both(
        self, visit: LayerVisit, grids: Mapping[int, Grid], constants: Mapping[str, Array]
    ) -> tuple[dict[str, Sequence[Array]], dict[str, Sequence[Array]]]:
        """What the node makes in each copy: one session for both, unless INT8 changes the node."""
        node, names = visit.node, visit.exact.keys()
        if grids or constants:
            exact = run_node(self.view, self.load, node, visit.exact)
            return exact, run_node(
                self.view, self.load, node, visit.actual, grids=grids, constants=constants
            )
        if all(visit.exact[name] is visit.actual[name] for name in names):
            exact = run_node(self.view, self.load, node, visit.exact)
            return exact, exact
        joined = {name: [*visit.exact[name], *visit.actual[name]] for name in names}
        made, count = run_node(self.view, self.load, node, joined), len(self.samples)
        exact = {name: values[:count] for name, values in made.items()}
        return exact, {name: values[count:] for name, values in made.items()}

    def _variable_inputs(self, node: Node) -> list[str]:
        names = [name for name in reads(node.proto) if not self.view.is_constant(name)]
        return [name for name in names if name in self._produced]

    def _corrected(
        self,
        node: Node,
        exact: Mapping[str, Sequence[Array]],
        actual: Mapping[str, Sequence[Array]],
    ) -> Sequence[Array]:
        output, axis = node.outputs[0], channel_axis(node)
        shift = bias_shift(exact[output], actual[output], axis=axis)
        self.shifts[node.name] = shift
        shape = [1] * actual[output][0].ndim
        shape[axis] = -1
        added = shift.reshape(shape).astype(actual[output][0].dtype)
        return [values + added for values in actual[output]]

    def _forget(self, node: Node) -> None:
        """Drop what no later node reads; what is computed and never read, too."""
        for name in node.inputs:
            if name in self._unread:
                self._unread[name] -= 1
        for name in {*node.inputs, *node.outputs}:
            kept = name in self.view.outputs or name in self.view.captured
            if not kept and self._unread.get(name, 1) <= 0:
                self.exact.pop(name, None)
                self.actual.pop(name, None)


def _for_each(found: Mapping[str, Sequence[Array]], count: int) -> dict[str, Sequence[Array]]:
    """What no sample changes, as a value of every sample."""
    return {name: [values[0]] * count for name, values in found.items() if values}


def _alike(exact: Sequence[Array], actual: Sequence[Array]) -> bool:
    """Whether values differ by errors: floats of equal shapes."""
    pairs = zip(exact, actual, strict=True)
    return all(a.dtype.kind == "f" and a.shape == e.shape for e, a in pairs)


def can_walk(view: GraphView) -> bool:
    """Whether all that the nodes hand on are tensors; sequences only pass inside bodies."""
    return not any("Sequence" in node.op_type or "Optional" in node.op_type for node in view.nodes)


def run_node(
    view: GraphView,
    load: Load,
    node: Node,
    values: Mapping[str, Sequence[Array]],
    *,
    grids: Mapping[int, Grid] | None = None,
    constants: Mapping[str, Array] | None = None,
) -> dict[str, Sequence[Array]]:
    """One node on all samples: output name → one array a sample.

    Args:
        view: the graph.
        load: runs a model.
        node: the node.
        values: its variable inputs (and what its bodies capture), one array a sample.
        grids: input index → what its Q/DQ pair does.
        constants: constant name → values to use instead.
    """
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    quantized: dict[str, tuple[str, Grid]] = {}
    for index, grid in (grids or {}).items():
        name = f"{node.inputs[index]}.quantized.{index}"
        quantized[name] = (node.inputs[index], grid)
        proto.input[index] = name
    run: Run | None = None
    results: dict[str, list[Array]] = {name: [] for name in node.outputs if name}
    for number in range(len(next(iter(values.values()), [None]))):
        feeds = {name: arrays[number] for name, arrays in values.items()}
        feeds |= {name: grid(feeds[of]) for name, (of, grid) in quantized.items()}
        feeds = {name: feeds[name] for name in feeds if name in reads(proto)}
        if run is None:
            shapes = {
                name: _known_shape(values[quantized[name][0] if name in quantized else name])
                for name in feeds
            }
            run = load(_single(view, proto, feeds, shapes, constants or {}))
        for name, value in run(feeds).items():
            results[name].append(value)
    return dict(results)


def live_bytes(view: GraphView, load: Load, sample: Arrays) -> int:
    """The most bytes of activations that are alive at once when one sample is walked."""
    both = FloatAndInt8(view=view, load=load, samples=[sample], correct=False)
    peak = 0

    def measure(visit: LayerVisit) -> Decision:
        nonlocal peak
        peak = max(peak, sum(array.nbytes for arrays in both.exact.values() for array in arrays))
        return {}, {}

    both.walk(measure)
    return peak


def reads(proto: onnx.NodeProto) -> dict[str, None]:
    """Every tensor a node reads, and every name inside its bodies, each once."""
    names = dict.fromkeys(name for name in proto.input if name)
    for body in subgraphs(proto):
        for inner in nodes(body):
            names.update(reads(inner))
        names.update(dict.fromkeys(output.name for output in body.output))
    return names


def _single(
    view: GraphView,
    proto: onnx.NodeProto,
    feeds: Arrays,
    shapes: Mapping[str, list[int | None]],
    constants: Mapping[str, Array],
) -> onnx.ModelProto:
    """A model of one node, its constants inside."""
    stored = []
    for name in reads(proto):
        value = constants.get(name, view.constant(name))
        if value is not None:
            stored.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), shapes[name]
        )
        for name, array in feeds.items()
    ]
    outputs = [_typed(view, name) for name in proto.output if name]
    graph = helper.make_graph([proto], "node", inputs, outputs, stored)
    return helper.make_model(
        graph, opset_imports=view.model.opset_import, ir_version=view.model.ir_version
    )


def _known_shape(arrays: Sequence[Array]) -> list[int | None]:
    """Free for floats; sizes and axes keep the lengths that all samples have."""
    if arrays[0].dtype.kind == "f":
        return [None] * arrays[0].ndim
    lengths = [set(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True)]
    return [sizes.pop() if len(sizes) == 1 else None for sizes in lengths]


def _typed(view: GraphView, name: str) -> onnx.ValueInfoProto:
    if not view.element_type(name):  # of an operator that ONNX does not know: the runtime finds out
        return onnx.ValueInfoProto(name=name)
    return helper.make_tensor_value_info(name, view.element_type(name), None)


def _has_constant(view: GraphView, node: Node) -> bool:
    """Whether it is a layer with a constant weight of output channels and no computed bias."""
    if node.op_type not in WEIGHTED_OPS:
        return False
    weight = view.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if weight is None or weight.ndim < 2:  # of a vector, the product has no axis of channels
        return False
    return len(node.inputs) < 3 or not node.inputs[2] or view.constant(node.inputs[2]) is not None
