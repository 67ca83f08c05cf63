"""Bodies of If, Loop and Scan as models of their own, so that rules can look into them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper, numpy_helper

from quantization.graph_view import GraphView

__all__ = ["bodies"]


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
                model = _standing_alone(view, body)
                yield path, model
                for inner, nested in bodies(GraphView(model)):
                    yield f"{path}/{inner}", nested


def _standing_alone(view: GraphView, body: onnx.GraphProto) -> onnx.ModelProto:
    graph = onnx.GraphProto()
    graph.CopyFrom(body)
    for name in sorted(_read_from_outside(body)):
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


def _read_from_outside(body: onnx.GraphProto) -> set[str]:
    """Names that a body, or a body in it, reads and does not define."""
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    own.update(name for node in body.node for name in node.output)
    read = {name for node in body.node for name in node.input if name}
    read.update(output.name for output in body.output)
    for node in body.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                read |= _read_from_outside(inner)
    return read - own
