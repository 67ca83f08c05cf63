"""Model-local functions, which PyTorch's exporter writes: their nodes go into the graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnx import FunctionProto, ModelProto, NodeProto, inliner

from artefacts.errors import ModelError
from graphs.opset import ONNX_ERRORS, reason
from graphs.untrusted import LARGEST_GRAPH
from graphs.walk import nodes, subgraphs

__all__ = ["inline_functions"]

_Key = tuple[str, str]


def inline_functions(model: ModelProto) -> ModelProto:
    """A model without local functions; the given one where it has none.

    Raises:
        ModelError: functions call each other in a circle, or unfold to more than 100,000 nodes.
    """
    if not model.functions:
        return model
    functions = {(f.domain, f.name): f for f in model.functions}
    total = _unfolded(nodes(model), functions, {}, ())
    if total > LARGEST_GRAPH:
        raise ModelError(
            f"graph {model.graph.name!r} unfolds to {total} nodes, expected at most "
            f"{LARGEST_GRAPH}; export the model without functions"
        )
    try:
        return inliner.inline_local_functions(model)
    except ONNX_ERRORS as err:
        raise ModelError(
            f"functions of graph {model.graph.name!r} cannot be unfolded ({reason(err)}), expected "
            f"valid ones; export the model without functions"
        ) from err


def _unfolded(
    found: Iterable[NodeProto],
    functions: Mapping[_Key, FunctionProto],
    known: dict[_Key, int],
    path: tuple[_Key, ...],
) -> int:
    """Nodes after every call is replaced by what it calls."""
    total = 0
    for node in found:
        key = (node.domain, node.op_type)
        for body in subgraphs(node):
            total += _unfolded(nodes(body), functions, known, path)
        if key not in functions:
            total += 1
            continue
        if key in path or len(path) > 100:
            raise ModelError(
                f"function {node.op_type!r} calls itself, directly or through others, expected no "
                f"circle; export the model without functions"
            )
        if key not in known:
            known[key] = _unfolded(nodes(functions[key]), functions, known, (*path, key))
        total += known[key]
    return total
