"""How much each fusion group costs: quantized alone, and left in float alone.

Alone in INT8 in the float network says what a group adds; alone in float in the INT8 network says
what would be won by leaving it in float. Errors of groups nearly add up in convolutional networks
(peers: AIMET, INC), but not exactly, so a search checks what it concludes on the whole network.

Both need a run for each group. The part of the network before the group is the same as without
it, so the two networks are walked once, node by node, and only what follows each group is run
again: half of the cost of as many full passes.

Source of the measure: SQNR and KL of the outputs, quantization.measure.fidelity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper

from artefacts.decibels import noise_share
from artefacts.errors import ModelError
from graphs.comparable import comparable_outputs, with_outputs
from graphs.identity import graph_hash
from graphs.view import GraphView
from graphs.walk import nodes, reads
from quantization.arithmetic import dequantize
from quantization.improve.improved import Improved
from quantization.improve.walk.float_and_int8 import Decision, FloatAndInt8, LayerVisit, can_walk
from quantization.improve.walk.grid import Grid
from quantization.measure.execution import Arrays, Load, load_int8, load_onnxruntime
from quantization.measure.fidelity import Fidelity, compare, run_all
from quantization.placement import Placement
from quantization.placement.fusion_groups import Group, fusion_groups, leave_float, only
from quantization.write.insert import insert_qdq, unify_ranges
from quantization.write.weights import quantize_weight

__all__ = ["Sensitivity", "sensitivities"]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What one group does to the outputs.

    Attributes:
        group: the fusion group.
        alone: only this group in INT8, against float.
        without: all groups in INT8 but this one, against float.
        gained: share of the INT8 network's noise that goes when this group is left in float;
            negative where it would grow.
    """

    group: Group
    alone: Fidelity
    without: Fidelity
    gained: float

    @property
    def noise(self) -> float:
        """Noise power that this group alone adds, as a share of the signal."""
        return noise_share(self.alone.sqnr_db)


def sensitivities(
    reference: onnx.ModelProto,
    improved: Improved,
    placement: Placement,
    samples: Sequence[Arrays],
    *,
    load_quantized: Load = load_int8,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Sensitivity, ...]:
    """Sensitivity of every group, largest gain first.

    Args:
        reference: the prepared float network, whose outputs are right.
        improved: the network and everything INT8 needs.
        placement: of it.
        samples: feeds, one sample each, not those of the calibration.
        load_quantized: runs Q/DQ models.
        progress: called with side runs done and their number.

    Raises:
        DataError: no samples.
        ArtefactError: the ranges are of another graph.
        ModelError: a part of the network cannot be run, or it hands on sequences of tensors.
    """
    view = GraphView(reference)
    if not can_walk(view):
        raise ModelError(
            f"graph {reference.graph.name!r} hands on sequences of tensors, which cannot be walked "
            "layer by layer, expected tensors; export it with static shapes, or --exclude layers"
        )
    improved.ranges.check_graph(graph_hash(improved.model))
    judged = comparable_outputs(view)
    model = with_outputs(improved.model, judged)
    ranges = dataclasses.replace(improved.ranges, graph_hash=graph_hash(model))
    improved = dataclasses.replace(improved, model=model, ranges=ranges)
    reference = with_outputs(reference, judged)
    return _Sweep(reference, improved, placement, samples, load_quantized, progress).run()


class _Sweep:
    """One walk over both networks, with a side run at the start of each group."""

    def __init__(
        self,
        reference: onnx.ModelProto,
        improved: Improved,
        placement: Placement,
        samples: Sequence[Arrays],
        load_quantized: Load,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._improved = improved
        self._placement = placement
        self._view = GraphView(improved.model)
        self._ranges = unify_ranges(improved.ranges, placement)
        self._load_quantized = load_quantized
        self._progress = progress
        self._samples = samples
        self._exact = run_all(load_onnxruntime(reference), samples)
        self._groups = fusion_groups(self._view, placement)
        self._edges = {(e.node, e.index): e for e in placement.activations}
        self._weights = {w.node: w for w in placement.weights}
        self._alone: dict[str, Fidelity] = {}
        self._without: dict[str, Fidelity] = {}
        self._starts: dict[str, list[Group]] = {}
        for group in self._groups:
            self._starts.setdefault(self._view.nodes[group.position].name, []).append(group)

    def run(self) -> tuple[Sensitivity, ...]:
        """Walk both networks, then relate every group to the whole INT8 network."""
        whole = compare(
            self._load_quantized(self._improved.quantized(self._placement)),
            self._samples,
            self._exact,
        )
        # Left in float, layers have the biases of float layers.
        nothing = leave_float(self._placement, self._groups, why="reference")
        plain = GraphView(self._improved.leaving(nothing).model)
        for view, visit in ((plain, self._visit_float), (self._view, self._visit_int8)):
            self._both = FloatAndInt8(view=view, samples=self._samples, correct=False)
            self._both.walk(visit)
        noise = noise_share(whole.sqnr_db)
        found = [
            Sensitivity(
                group=group,
                alone=self._alone[group.name],
                without=self._without[group.name],
                gained=1 - noise_share(self._without[group.name].sqnr_db) / noise if noise else 0.0,
            )
            for group in self._groups
        ]
        return tuple(sorted(found, key=lambda s: (-s.gained, s.group.position)))

    def _visit_float(self, visit: LayerVisit) -> Decision:
        for group in self._starts.get(visit.node.name, ()):
            part = only(self._placement, group)
            self._alone[group.name] = self._rest(group, self._both.exact, part)
            self._tell()
        return {}, {}

    def _visit_int8(self, visit: LayerVisit) -> Decision:
        for group in self._starts.get(visit.node.name, ()):
            part = leave_float(self._placement, [group], why="tried alone")
            self._without[group.name] = self._rest(group, self._both.actual, part)
            self._tell()
        grids = {}
        for index in range(len(visit.node.inputs)):
            edge = self._edges.get((visit.node.name, index))
            if edge is not None:
                fixed = self._placement.fixed.get(edge.observed)
                amax = self._ranges[edge.observed].amax if fixed is None else fixed
                unsigned = edge.observed in self._placement.unsigned
                grids[index] = Grid(amax=amax, unsigned=unsigned)
        return grids, self._constants(visit)

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(len(self._alone) + len(self._without), 2 * len(self._groups))

    def _constants(self, visit: LayerVisit) -> Mapping[str, Array]:
        weight = self._weights.get(visit.node.name)
        if weight is None:
            return {}
        found = self._improved.weights.get(weight.tensor) or quantize_weight(self._view, weight)
        return {weight.tensor: dequantize(found.codes, found.scale, axis=weight.axis)}

    def _rest(
        self, group: Group, values: Mapping[str, Sequence[Array]], placement: Placement
    ) -> Fidelity:
        """The network from the group's first node on, fed with what the walk has reached."""
        improved = self._improved.leaving(placement)
        rest = suffix(improved.model, self._view.nodes[group.position].name, values)
        names = {node.name for node in nodes(rest)}
        part = dataclasses.replace(
            placement,
            activations=tuple(e for e in placement.activations if e.node in names),
            weights=tuple(w for w in placement.weights if w.node in names),
            int8_nodes=tuple(n for n in placement.int8_nodes if n in names),
            shared=(),  # the ranges are shared already
        )
        # Ranges carry the hash of their graph; the rest is another graph of the same tensors.
        ranges = dataclasses.replace(self._ranges, graph_hash=graph_hash(rest))
        tensors = {weight.tensor for weight in part.weights}
        weights = {n: v for n, v in improved.weights.items() if n in tensors}
        int8 = insert_qdq(rest, part, ranges, weight_overrides=weights)
        # Behind all that is compared (the second stage of a detector) there is nothing to run.
        inner = self._load_quantized(int8) if rest.graph.output else lambda _: {}
        fed = [value.name for value in rest.graph.input]
        # Outputs that the walk has passed already are fed to the comparison as they are.
        done = [name for name in self._view.outputs if name in values]
        feeds = [
            {name: values[name][number] for name in (*fed, *done)}
            for number in range(len(self._samples))
        ]

        def run(arrays: Arrays) -> dict[str, Array]:
            found = inner({name: arrays[name] for name in fed})
            return {**found, **{name: arrays[name] for name in done}}

        return compare(run, feeds, self._exact)


def suffix(
    model: onnx.ModelProto, first: str, values: Mapping[str, Sequence[Array]]
) -> onnx.ModelProto:
    """The nodes of a model from ``first`` on, as a model that reads what came before.

    Args:
        model: a prepared model.
        first: name of the first node to keep.
        values: tensor → arrays, one a sample: of everything that may be read.
    """
    view = GraphView(model)
    position = next(node.position for node in view.nodes if node.name == first)
    kept = [
        node
        for node in view.nodes
        if node.position >= position or view.is_constant(node.outputs[0])
    ]
    made = {name for node in kept for name in node.outputs}
    read = dict.fromkeys(name for node in kept for name in reads(node.proto))
    inputs = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(values[name][0].dtype),
            [None] * values[name][0].ndim,
        )
        for name in read
        if name in values and name not in made
    ]
    outputs = [output for output in model.graph.output if output.name in made]
    stored = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = helper.make_graph([n.proto for n in kept], "rest", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
