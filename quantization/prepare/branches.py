"""``If`` nodes whose condition is constant: the branch that is taken goes into the graph.

PyTorch writes an ``If`` for each ``squeeze`` whose size the tracer did not know; once shapes are
folded the condition is a constant, and TensorRT and quantization see layers instead of a subgraph.
"""

from __future__ import annotations

from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from graphs.edit import replace_nodes, rewire
from graphs.names import Names, stem
from graphs.walk import attributes, constants, is_default_domain, nodes

__all__ = ["inline_branches"]


def inline_branches(model: ModelProto) -> bool:
    """Replace each ``If`` on a constant by the branch it takes. Returns whether any was."""
    graph = model.graph
    known = constants(graph)
    names = Names(graph)
    written: list[NodeProto] = []
    changed = False
    for node in nodes(graph):
        condition = known.get(node.input[0]) if node.op_type == "If" and node.input else None
        if condition is None or not is_default_domain(node):
            written.append(node)
            continue
        taken = bool(numpy_helper.to_array(condition).any())
        branch = "then_branch" if taken else "else_branch"
        written.extend(_inline(node, branch, graph, names))
        changed = True
    if changed:
        replace_nodes(graph, written)
    return changed


def _inline(node: NodeProto, branch: str, graph: GraphProto, names: Names) -> list[NodeProto]:
    """The nodes of a branch under names that are free in ``graph``, and its outputs' names."""
    body = GraphProto()
    body.CopyFrom(attributes(node)[branch])
    made = [tensor.name for tensor in body.initializer]
    made += [name for inner in nodes(body) for name in inner.output if name]
    new = {name: names.tensor(f"{node.output[0]}//{name}") for name in made}
    rewire(body, new)
    for tensor in body.initializer:
        tensor.name = new[tensor.name]
        graph.initializer.append(tensor)
    written = list(nodes(body))
    for inner in written:
        inner.output[:] = [new.get(name, name) for name in inner.output]
        if inner.name:
            names.rename(inner, f"{stem(node)}//{inner.name}")
    for value, output in zip(body.output, node.output, strict=False):
        source = new.get(value.name, value.name)
        written.append(helper.make_node("Identity", [source], [output]))
    return written
