"""How large a model of somebody else may be: what a small file can claim is bounded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from onnx import GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

from artefacts.errors import ModelError

__all__ = ["LARGEST_GRAPH", "ExternalReads", "check_extent", "tensors_of_nodes"]

LARGEST_GRAPH = 100_000  # nodes: preparing so many takes a minute; exported networks have 20,000
_MOST_SPARSE_ELEMENTS = 2**29  # of all sparse weights once they are dense: 2 GB in float32
_DEEPEST = 100  # bodies in bodies
_SHARED = 4  # times that a byte of an external file may be read


def check_extent(model: ModelProto, path: Path) -> None:
    """Refuse a graph of too many nodes or of sparse weights that would fill the memory.

    Raises:
        ModelError: it is too large.
    """
    for nodes, _ in enumerate(_nodes(model.graph.node, 0, path), 1):
        if nodes > LARGEST_GRAPH:
            raise ModelError(
                f"model {path} has more than {LARGEST_GRAPH} nodes, expected at most so many; "
                "simplify or split it"
            )
    dense = sum(math.prod(max(dim, 0) for dim in sparse.dims) for sparse in _sparse(model.graph))
    if dense > _MOST_SPARSE_ELEMENTS:
        raise ModelError(
            f"model {path} has sparse weights of {dense} elements once they are dense, expected "
            f"at most {_MOST_SPARSE_ELEMENTS}; export it with dense weights"
        )


def tensors_of_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    """Tensors among the attributes of nodes: those of functions lie nowhere else."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from graph.initializer
                yield from tensors_of_nodes(graph.node)


class ExternalReads:
    """Counts what tensors read of each external file: many may not read the same bytes."""

    def __init__(self) -> None:
        self._bytes: dict[Path, int] = {}

    def add(self, file: Path, length: int, size: int) -> None:
        """Count ``length`` bytes of a file of ``size``.

        Raises:
            ModelError: the same bytes were read again and again.
        """
        self._bytes[file] = self._bytes.get(file, 0) + length
        if self._bytes[file] > _SHARED * size:
            raise ModelError(
                f"tensors read {self._bytes[file]} bytes of {file}, which has {size}, expected "
                "each to have bytes of its own; export the model again"
            )


def _nodes(nodes: Iterable[NodeProto], depth: int, path: Path) -> Iterator[NodeProto]:
    if depth > _DEEPEST:
        raise ModelError(
            f"model {path} has bodies nested more than {_DEEPEST} deep, expected fewer; export it "
            "without such control flow"
        )
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from _nodes(graph.node, depth + 1, path)


def _sparse(graph: GraphProto) -> Iterator[SparseTensorProto]:
    yield from graph.sparse_initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor"):
                yield attribute.sparse_tensor
            yield from attribute.sparse_tensors
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from _sparse(inner)
