"""Bodies of If, Loop and Scan as models of their own, so that rules can look into them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper, numpy_helper

from graphs.view import GraphView
from graphs.walk import operator, producers, read_from_outside, subgraphs

__all__ = ["bodies", "handed_on", "repeats_by_values", "standing_alone"]


def bodies(view: GraphView) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Every body of a graph, nested ones too.

    Yields:
        Its path, e.g. "If_3/then_branch", and a model whose graph is the body. Outer tensors that
        it reads are initializers there where they are constant, else inputs.
    """
    for node in view.nodes:
        for attribute in node.proto.attribute:
            for body in (attribute.g, *attribute.graphs):
                if not body.node:
                    continue
                path = f"{node.name}/{attribute.name}"
                model = standing_alone(view, body)
                yield path, model
                for inner, nested in bodies(GraphView(model)):
                    yield f"{path}/{inner}", nested


def standing_alone(view: GraphView, body: onnx.GraphProto) -> onnx.ModelProto:
    """A body as a model: outer tensors that it reads are initializers or inputs there."""
    graph = onnx.GraphProto()
    graph.CopyFrom(body)
    for name in sorted(filter(None, read_from_outside(body))):
        value = view.constant(name)
        if value is not None:
            graph.initializer.append(numpy_helper.from_array(value, name))
        else:
            graph.input.append(
                helper.make_tensor_value_info(name, view.element_type(name), view.shape(name))
            )
    return helper.make_model(
        graph, opset_imports=view.model.opset_import, ir_version=view.model.ir_version
    )


def handed_on(body: onnx.GraphProto, name: str) -> str:
    """The tensor that a body gives under another name; its own name, where it is computed."""
    makers = producers(body)
    while name in makers and operator(makers[name]) == "Identity":
        name = makers[name].input[0]
    return name


def repeats_by_values(node: onnx.NodeProto) -> bool:
    """Whether a node is a Loop whose body computes when to end, e.g. at the end of a sentence."""
    return operator(node) == "Loop" and any(
        {handed_on(body, end.name) for end in body.output[:1]} != {v.name for v in body.input[1:2]}
        for body in subgraphs(node)
    )
