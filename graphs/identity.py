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
    # Everything but the weights; those are hashed where they lie: a copy would double the memory,
    # and protobuf serialises no more than 2 GB.
    graph = onnx.GraphProto(
        node=model.graph.node,
        input=model.graph.input,
        output=model.graph.output,
        sparse_initializer=model.graph.sparse_initializer,
        quantization_annotation=model.graph.quantization_annotation,
    )
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    digest.update(graph.SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        _update(digest, tensor)
    for function in model.functions:
        digest.update(function.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _update(digest: hashlib._Hash, tensor: onnx.TensorProto) -> None:
    if not tensor.raw_data:
        digest.update(tensor.SerializeToString(deterministic=True))
        return
    head = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    digest.update(head.SerializeToString(deterministic=True))
    digest.update(len(tensor.raw_data).to_bytes(8, "big"))
    digest.update(tensor.raw_data)
