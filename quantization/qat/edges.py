"""What placement decided on the ONNX graph, said of the graph of torch operators that trains."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from artefacts.errors import UnsupportedError
from graphs.edit import copy_model
from graphs.operators import REARRANGING_OPS
from graphs.pairs import ANY_TWO, pairing_axis_of
from graphs.view import GraphView, Node
from quantization.placement import Placement, QuantizedInput, QuantizedWeight, place
from quantization.placement.result import Profile
from quantization.prepare.prepare import prepare
from quantization.qat.capture import Capture

if TYPE_CHECKING:
    import torch

__all__ = ["ActivationEdge", "WeightEdge", "decide", "edges_of"]


@dataclass(frozen=True, kw_only=True)
class ActivationEdge:
    """An activation that ``reader`` reads through a fake quantizer.

    Attributes:
        reader: name of the reading operator.
        argument: name of the operator whose result it reads.
        scale: the group of tensors whose scale it takes, by its first observed tensor.
    """

    reader: str
    argument: str
    scale: str


@dataclass(frozen=True, kw_only=True)
class WeightEdge:
    """A weight that ``reader`` reads through a fake quantizer.

    Attributes:
        reader: name of the reading operator.
        argument: name of the parameter's, or the computed weight's, node.
        axis: its output channel axis; None for one scale.
        pairs: its input channel axis, of which no pair of neighbours may saturate, or
            ``graphs.pairs.ANY_TWO``; None where they may.
    """

    reader: str
    argument: str
    axis: int | None
    pairs: int | None = None


def decide(
    capture: Capture, *, profile: Profile, exclude: tuple[str, ...], portable: bool = False
) -> Placement:
    """Placement on the prepared graph, as it will be after training.

    A parameter that is exactly 0 or 1 when training starts (LayerScale, a zero-initialised gamma)
    would let preparation drop its node; so the graph is prepared with all of them moved a little.

    Args:
        capture: the network.
        profile: whose rules.
        exclude: patterns of what stays in floating point.
        portable: for CPUs without VNNI, too.
    """
    trained = {name for name, p in capture.network.named_parameters() if p.requires_grad}
    jittered = copy_model(capture.model)
    generator = np.random.default_rng(0)
    for tensor in jittered.graph.initializer:
        if tensor.name in trained and tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            shift = generator.uniform(0.01, 0.02, values.shape).astype(values.dtype)
            tensor.CopyFrom(numpy_helper.from_array(values + shift, tensor.name))
    # Sizes computed at run time (attention over a reshaped batch) are followed here, as the graph
    # comes from the caller's own network; files are never trusted with it.
    sized = onnx.shape_inference.infer_shapes(prepare(jittered), data_prop=True)
    return place(sized, profile=profile, exclude=exclude, portable=portable)


def edges_of(
    capture: Capture, placement: Placement
) -> tuple[tuple[ActivationEdge, ...], tuple[WeightEdge, ...]]:
    """The placement's edges in the captured network.

    Raises:
        UnsupportedError: an edge lies inside what torch computes as one operator.
    """
    matching = _Matching(capture)
    group = {name: names[0] for names in placement.shared for name in names}
    group.update({name: name for name in placement.fixed})
    activations = tuple(
        ActivationEdge(
            reader=matching.reader(edge).name,
            argument=matching.argument(edge)[0].name,
            scale=group.get(edge.observed, edge.observed),
        )
        for edge in map(matching.outside, placement.activations)
    )
    return activations, tuple(matching.weight(edge) for edge in placement.weights)


class _Matching:
    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._view = GraphView(capture.written)
        self._nodes = {node.name: node for node in self._view.nodes}
        self._operators = {node.name: node for node in capture.network.graph.nodes}

    def outside(self, edge: QuantizedInput) -> QuantizedInput:
        """The same edge behind what one operator of torch does: unbind is a Split and a Squeeze."""
        node, owners = self._nodes[edge.node], self._capture.owners
        maker, uses = self._view.producer(node.inputs[edge.index]), self._view.uses(node.outputs[0])
        inside = maker is not None and owners.get(maker.name, "") == owners.get(edge.node)
        if not inside or node.op_type != "Squeeze" or len(uses) != 1:
            return edge
        use, tensor = uses[0], node.outputs[0]
        return dataclasses.replace(edge, node=use.node.name, index=use.index, tensor=tensor)

    def reader(self, edge: QuantizedInput | QuantizedWeight) -> torch.fx.Node:
        """The operator that the reading node is a part of."""
        owner: torch.fx.Node | None = self._operators.get(self._capture.owners.get(edge.node, ""))
        if owner is None:
            raise self._unsupported(edge)
        return owner

    def argument(
        self, edge: QuantizedInput | QuantizedWeight
    ) -> tuple[torch.fx.Node, tuple[int, ...]]:
        """Which of the operator's arguments the edge reads, and how its axes are turned on the way.

        The second is the transposition between them: axis i of what the ONNX node reads is axis
        ``turned[i]`` of the argument; empty where the axes are not known one by one.
        """
        reader = self.reader(edge)
        name = self._nodes[edge.node].inputs[edge.index]
        turned = tuple(range(len(self._view.shape(name) or ())))
        while True:
            found = [a for a in reader.all_input_nodes if self._makes(a, name)]
            if found:
                return found[0], turned
            node = self._view.producer(name)
            if node is None or node.op_type not in REARRANGING_OPS:
                raise self._unsupported(edge)
            turned = _through(node, turned)
            name = node.inputs[0]

    def weight(self, edge: QuantizedWeight) -> WeightEdge:
        """The same for a weight, with its channel axes."""
        argument, turned = self.argument(edge)
        if (edge.axis is not None or edge.bounded) and not turned:
            raise self._unsupported(edge)
        axis = None if edge.axis is None else turned[edge.axis]
        reader = self.reader(edge)
        if axis is None and _feeds_batch_norm(reader):
            raise UnsupportedError(
                f"layer {edge.node} takes one scale for its whole weight and feeds a BatchNorm, "
                f"expected one scale per output channel, which folding keeps; exclude the layer "
                f"or take its BatchNorm out"
            )
        pairs = self._input_channels(edge, turned) if edge.bounded else None
        return WeightEdge(reader=reader.name, argument=argument.name, axis=axis, pairs=pairs)

    def _input_channels(self, edge: QuantizedWeight, turned: tuple[int, ...]) -> int | None:
        """The argument's axis that the layer's sums run over."""
        node = self._nodes[edge.node]
        shape = [size or 1 for size in self._view.shape(node.inputs[edge.index]) or ()]
        axis = pairing_axis_of(node, shape)
        return axis if axis in (None, ANY_TWO) else turned[axis]

    def _makes(self, argument: torch.fx.Node, name: str) -> bool:
        """Whether an argument of an operator is the ONNX tensor ``name``."""
        if argument.op == "get_attr":
            return argument.target == name or self._is_tied(str(argument.target), name)
        return self._capture.tensors.get(name, name) == argument.name

    def _is_tied(self, target: str, name: str) -> bool:
        """Whether two names are one parameter."""
        parameters = dict(self._capture.network.named_parameters(remove_duplicate=False))
        return name in parameters and parameters.get(target) is parameters[name]

    def _unsupported(self, edge: QuantizedInput | QuantizedWeight) -> UnsupportedError:
        operator = self._capture.owners.get(edge.node, "an operator that the export added")
        return UnsupportedError(
            f"input {edge.index} of {edge.node} is to be INT8 but lies inside {operator}, which "
            f"torch computes as one operator, expected a tensor of the network; exclude "
            f"{edge.node}, or write the operator out"
        )


def _through(node: Node, turned: tuple[int, ...]) -> tuple[int, ...]:
    """``turned`` seen from the input of a node that moves values."""
    if node.op_type == "Identity":
        return turned
    if node.op_type == "Transpose" and turned:
        order = node.integers("perm", tuple(reversed(range(len(turned)))))
        return tuple(order[axis] for axis in turned)
    return ()


def _feeds_batch_norm(reader: torch.fx.Node) -> bool:
    return any(
        getattr(user.target, "__name__", "") == "batch_norm.default" for user in reader.users
    )
