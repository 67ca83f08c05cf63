"""What of a model can be compared with the INT8 model, tensor by tensor.

Where a network ends in a selection (NonMaxSuppression, TopK, ArgMax), its outputs are no guide: one
more box moves all the others, a class changes or it does not. What it selects from is one. And
where it ends in a softmax, what that reads tells models apart with fewer samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import onnx
from onnx import TensorProto, helper

from graphs.bodies import repeats_by_values
from graphs.edit import copy_model
from graphs.operators import (
    ORDERING_OPS,
    REARRANGING_OPS,
    SHAPE_MAKING_OPS,
    SIZE_OPS,
    WEIGHTED_OPS,
)
from graphs.view import GraphView
from graphs.walk import nodes, producers, reads, with_bodies

__all__ = [
    "as_outputs",
    "before_scores",
    "chosen_places",
    "chosen_shapes",
    "comparable_outputs",
    "with_outputs",
]

# What all logits have in common, no answer sees.
_BEFORE_SCORES = {"Softmax": "LogSoftmax", "Sigmoid": "Identity"}


def chosen_shapes(view: GraphView) -> set[str]:
    """Tensors whose shape depends on values that INT8 changes, e.g. the boxes that are left."""
    varying = {name for name in view.inputs if view.is_float(name)}
    chosen: set[str] = set()
    for node in view.nodes:
        read = reads(node.proto)
        outputs = {name for name in node.outputs if name and not view.is_constant(name)}
        if not chosen.isdisjoint(read) or (
            _makes_shapes(node.proto) and not varying.isdisjoint(read)
        ):
            chosen |= outputs
        if node.op_type in SIZE_OPS and chosen.isdisjoint(read):
            continue
        floats = {name for name in outputs if view.is_float(name)}
        varying |= floats if varying.isdisjoint(read) else outputs
    return chosen


def chosen_places(view: GraphView) -> set[str]:
    """Tensors that hold other things in other places where two values change their order.

    What TopK and ArgMax say of places, and what is picked by them, e.g. the best boxes in the
    order of their scores. What a layer with weights makes of it is an answer of the network
    again, as in detectors that choose queries for a decoder.
    """
    chosen: set[str] = set()
    for node in view.nodes:
        outputs = {name for name in node.outputs if name and not view.is_constant(name)}
        if node.op_type in ORDERING_OPS and view.is_float(node.inputs[0]):
            chosen |= {name for name in outputs if not view.is_float(name)}
        elif not chosen.isdisjoint(reads(node.proto)) and not _answers(node.proto):
            chosen |= outputs
    return chosen


def comparable_outputs(view: GraphView) -> tuple[str, ...]:
    """The tensors to compare instead of a model's outputs: those outputs, where nothing is chosen.

    An output that holds integers, or whose shape or places depend on values, is replaced by the
    float tensors from which it was chosen, e.g. boxes and scores by what NonMaxSuppression reads.
    """
    chosen = chosen_shapes(view) | chosen_places(view)
    found: dict[str, None] = {}
    for output in view.outputs:
        if view.is_float(output) and output not in chosen:
            found[output] = None
        else:
            found |= dict.fromkeys(_floats_above(view, output, chosen)) or {output: None}
    return tuple(found)


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy whose outputs are the tensors of these names; the model itself, if they are already.

    Args:
        model: of the network or of its INT8 version, where tensors keep their names.
        names: from :func:`comparable_outputs` of the network.
    """
    if [output.name for output in model.graph.output] == list(names):
        return model
    result = copy_model(model)
    del result.graph.output[:]
    result.graph.output.extend(as_outputs(model, names))
    return result


def as_outputs(model: onnx.ModelProto, names: Sequence[str]) -> list[onnx.ValueInfoProto]:
    """How a graph declares tensors that it is to give out."""
    known = {output.name: output for output in model.graph.output}
    view = GraphView(model)
    return [
        known[name]
        if name in known
        else helper.make_tensor_value_info(
            name, view.element_type(name) or TensorProto.FLOAT, view.shape(name)
        )
        for name in names
    ]


def before_scores(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose outputs are logits, or log-probabilities, where it ends in sigmoid or softmax.

    The model itself where it does not.

    A sample whose class is certain leaves a softmax with no noise, one that is in doubt with all of
    it: a handful of samples decides the SQNR of such outputs. That of their logarithm needs few
    samples to tell two INT8 models apart.
    """
    made, changed = producers(model), {}
    readers = Counter(name for node in nodes(model) for name in node.input)
    for output in model.graph.output:
        name = output.name
        while name in made and not readers[name] and made[name].op_type in REARRANGING_OPS:
            readers[made[name].input[0]] -= 1
            name = made[name].input[0]
        if name not in made or readers[name]:
            continue
        if (op_type := made[name].op_type) in _BEFORE_SCORES:
            changed[name] = _BEFORE_SCORES[op_type]
    if not changed:
        return model
    copy = copy_model(model)
    made = producers(copy)
    for name, op_type in changed.items():
        made[name].op_type = op_type
    return copy


def _makes_shapes(node: onnx.NodeProto) -> bool:
    inside = with_bodies(node)
    return any(each.op_type in SHAPE_MAKING_OPS or repeats_by_values(each) for each in inside)


def _answers(node: onnx.NodeProto) -> bool:
    """Whether what a node makes is no longer what it reads, in other places."""
    return any(each.op_type in WEIGHTED_OPS | SIZE_OPS for each in with_bodies(node))


def _floats_above(view: GraphView, tensor: str, chosen: set[str]) -> Iterator[str]:
    """The nearest float tensors of fixed shape that ``tensor`` is computed from."""
    pending, seen = [tensor], {tensor}
    while pending:
        node = view.producer(pending.pop())
        if node is None or node.op_type in SIZE_OPS:
            continue
        for name in reads(node.proto):
            if name in seen or view.is_constant(name) or view.producer(name) is None:
                continue
            seen.add(name)
            if view.is_float(name) and name not in chosen:
                yield name
            else:
                pending.append(name)
