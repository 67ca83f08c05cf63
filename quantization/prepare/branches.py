"""``If`` nodes whose condition is constant: the branch that is taken goes into the graph.

PyTorch writes an ``If`` for each ``squeeze`` whose size the tracer did not know; once shapes are
folded the condition is a constant, and TensorRT and quantization see layers instead of a subgraph.
"""

from __future__ import annotations

from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from graphs.edit import constants, is_default_domain, replace_nodes, rewire

__all__ = ["inline_branches"]


def inline_branches(model: ModelProto) -> bool:
    """Replace each ``If`` on a constant by the branch it takes. Returns whether any was."""
    graph = model.graph
    known = constants(graph)
    nodes: list[NodeProto] = []
    changed = False
    for node in graph.node:
        condition = known.get(node.input[0]) if node.op_type == "If" and node.input else None
        if condition is None or not is_default_domain(node):
            nodes.append(node)
            continue
        taken = bool(numpy_helper.to_array(condition).any())
        nodes.extend(_inline(node, "then_branch" if taken else "else_branch", graph))
        changed = True
    if changed:
        replace_nodes(graph, nodes)
    return changed


def _inline(node: NodeProto, branch: str, graph: GraphProto) -> list[NodeProto]:
    """The nodes of a branch under names that are free in ``graph``, and its outputs' names."""
    body = GraphProto()
    body.CopyFrom(next(a.g for a in node.attribute if a.name == branch))
    made = [tensor.name for tensor in body.initializer]
    made += [name for inner in body.node for name in inner.output if name]
    names = {name: f"{node.output[0]}//{name}" for name in made}
    rewire(body, names)
    for tensor in body.initializer:
        tensor.name = names[tensor.name]
        graph.initializer.append(tensor)
    nodes = list(body.node)
    for inner in nodes:
        inner.output[:] = [names.get(name, name) for name in inner.output]
        inner.name = f"{node.name or node.output[0]}//{inner.name}" if inner.name else ""
    for value, output in zip(body.output, node.output, strict=False):
        source = names.get(value.name, value.name)
        nodes.append(helper.make_node("Identity", [source], [output]))
    return nodes
