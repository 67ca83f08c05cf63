"""The identity of an ONNX graph: what every artefact of one model carries."""

from __future__ import annotations

import hashlib

import onnx

__all__ = ["graph_hash"]


def graph_hash(model: onnx.ModelProto) -> str:
    """Hex SHA-256 of what a model computes and how its tensors are named.

    Metadata, documentation strings and producer fields do not count, so that saving, loading and
    annotating a model keeps its hash. External data must have been loaded.

    Args:
        model: a model with all tensors in memory.
    """
    digest = hashlib.sha256()
    for opset in sorted((entry.domain, entry.version) for entry in model.opset_import):
        digest.update(repr(opset).encode())
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    graph.name = ""
    graph.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    digest.update(graph.SerializeToString(deterministic=True))
    for function in model.functions:
        digest.update(function.SerializeToString(deterministic=True))
    return digest.hexdigest()
