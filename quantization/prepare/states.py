"""Shapes of what a Loop hands from step to step, which ONNX does not infer.

A state may have another shape after each step, so exporters that do not know leave it open, and
OpenVINO refuses a convolution of unknown rank. What no step changes is found here: a state is taken
to have the shape it starts with, the body's shapes are inferred, and axes that come out otherwise
are freed until nothing changes any more.
"""

from __future__ import annotations

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
    shape_inference,
)

from graphs.bodies import repeats_by_values, standing_alone
from graphs.names import Names
from graphs.opset import ONNX_ERRORS, hide_data
from graphs.view import GraphView, Shape
from graphs.walk import is_default_domain, nodes, operator, subgraphs, walk
from quantization.prepare.loops import BEFORE_STATES

__all__ = ["declare_states", "forget_states", "write_conditions"]


def forget_states(graph: GraphProto) -> None:
    """Drop what a file says of the outputs of its loops; :func:`declare_states` finds it out."""
    made = {name for node in nodes(graph) if node.op_type == "Loop" for name in node.output}
    kept = [value for value in graph.value_info if value.name not in made]
    if len(kept) < len(graph.value_info):
        del graph.value_info[:]
        graph.value_info.extend(kept)


def write_conditions(graph: GraphProto) -> None:
    """Give each Loop without a condition one that holds: TensorRT's parser misses it in the body.

    Only where the body hands on the condition that it gets: ONNX says that another is ignored, and
    onnxruntime ends the loop by it.
    """
    names = Names(graph)
    for node in walk(graph):
        if operator(node) != "Loop" or any(node.input[1:2]):
            continue
        if any(subgraphs(node)) and not repeats_by_values(node):
            condition = names.tensor(f"{node.output[0]}_condition")
            graph.initializer.append(numpy_helper.from_array(np.array(True), condition))
            count = node.input[0] if node.input else ""  # a node may list less than both
            node.input[:] = [count, condition, *node.input[BEFORE_STATES:]]


def declare_states(model: ModelProto) -> bool:
    """Write the shapes of states to bodies and ``value_info``; whether there was something to say.

    Loops inside of bodies are left as they are.
    """
    loops = [node for node in nodes(model) if node.op_type == "Loop" and is_default_domain(node)]
    if not loops:
        return False
    view = GraphView(model)
    return any(_declare(view, model, node) for node in loops)


def _declare(view: GraphView, model: ModelProto, node: NodeProto) -> bool:
    (body,) = subgraphs(node)
    names = node.input[BEFORE_STATES:]
    open_ = [
        _lacks_shape(body.input[BEFORE_STATES + n])
        or (bool(node.output[n]) and view.shape(node.output[n]) is None)
        for n in range(len(names))
    ]
    changed = False
    for number, shape in (_settled(view, node, body) if any(open_) else {}).items():
        kind, outer = view.element_type(names[number]), node.output[number]
        for value in (body.input[BEFORE_STATES + number], body.output[1 + number]):
            if _lacks_shape(value):
                value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shape))
                changed = True
        if outer and view.shape(outer) is None:
            changed |= _declare_outside(model.graph, outer, kind, shape)
    return changed


def _declare_outside(graph: GraphProto, name: str, kind: int, shape: Shape) -> bool:
    """Whether that is new: what an output of the graph is called stands with the output."""
    stated = {value.name: value for value in (*graph.output, *graph.value_info)}
    if name not in stated:
        stated[name] = graph.value_info.add()
    elif not _lacks_shape(stated[name]):
        return False
    stated[name].CopyFrom(helper.make_tensor_value_info(name, kind, shape))
    return True


def _lacks_shape(value: ValueInfoProto) -> bool:
    return not value.type.tensor_type.HasField("shape")


def _settled(view: GraphView, node: NodeProto, body: GraphProto) -> dict[int, Shape]:
    """State → the shape that it keeps."""
    starts = [view.shape(name) for name in node.input[BEFORE_STATES:]]
    shapes = {number: shape for number, shape in enumerate(starts) if shape is not None}
    while True:
        after = _after_a_step(view, node, body, shapes)
        joined = {n: _joined(shape, after.get(n)) for n, shape in shapes.items()}
        known = {n: shape for n, shape in joined.items() if shape is not None}
        if known == shapes:
            return known
        shapes = known


def _after_a_step(
    view: GraphView, node: NodeProto, body: GraphProto, shapes: dict[int, Shape]
) -> dict[int, Shape]:
    trial = standing_alone(view, body)
    for number, name in enumerate(node.input[BEFORE_STATES:]):
        value = trial.graph.input[BEFORE_STATES + number]
        kind = view.element_type(name)
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shapes.get(number)))
    for value in trial.graph.output:
        value.type.Clear()
    try:
        inferred = shape_inference.infer_shapes(hide_data(trial)[0]).graph
    except ONNX_ERRORS:
        return {}
    results = GraphView(ModelProto(graph=inferred, opset_import=trial.opset_import))
    found = {n: results.shape(body.output[1 + n].name) for n in shapes}
    return {number: shape for number, shape in found.items() if shape is not None}


def _joined(before: Shape, after: Shape | None) -> Shape | None:
    """What both are: free axes where they differ, nothing where their ranks do."""
    if after is None or len(after) != len(before):
        return None
    return tuple(b if a == b else None for b, a in zip(before, after, strict=True))
