"""Multiply-accumulates of the operators that ``graphs.operators`` counts.

Conv                every output element sums C_in / groups · prod(kernel) products: the weight
(C_out, C_in / groups, *kernel) without its first axis
ConvTranspose       every *input* element is spread over C_out / groups · prod(kernel)
Gemm, MatMul        output elements times K
GRU, LSTM, RNN      each step of each sequence multiplies by W (directions, gates · hidden,
input) and by R (directions, gates · hidden, hidden); what gates do element
by element is no product of matrices and does not count
If, Loop, Scan      what their bodies multiply, of an If the branch with most: a Scan once for each
of its steps, a Loop once for each turn where their number is constant, else once. Runtimes compute
bodies in floating point
Einsum              operands are contracted from left to right, as runtimes do it: each time the
product of the sizes of all letters of the two
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto

from graphs.operators import CONTROL_OPS, MAC_OPS, RECURRENT_OPS
from graphs.view import GraphView, Node, index_nodes
from graphs.walk import subgraphs

__all__ = ["Sizes", "macs", "network_macs", "sample_macs", "work"]

Sizes = Callable[[str], "Sequence[int] | None"]


def macs(node: Node, sizes: Sizes) -> int:
    """Multiply-accumulates of one node; 0 for operators that do not count, or of unknown shape.

    Args:
        node: any node.
        sizes: shape of a tensor, e.g. (1, 3, 32, 32); None where it is not known.
    """
    if node.op_type not in MAC_OPS:
        return 0
    shapes = [sizes(name) for name in node.inputs if name]
    if any(shape is None for shape in shapes[:2]):
        return 0
    known = [tuple(shape) for shape in shapes if shape is not None]
    if node.op_type == "Einsum":
        return _einsum(node.text("equation", ""), known) if len(known) == len(shapes) else 0
    if node.op_type in RECURRENT_OPS:
        recurrent = sizes(node.inputs[2])
        return prod(known[0][:2]) * (prod(known[1]) + prod(recurrent or (0,)))
    if len(known) < 2 or (output := sizes(node.outputs[0])) is None:
        return 0
    return _weighted(node, known[0], known[1], tuple(output))


def work(view: GraphView, node: Node) -> int:
    """Multiply-accumulates of a node and of its bodies; sizes that are not known count as one."""
    if node.op_type not in CONTROL_OPS:
        return macs(node, view.nominal_shape)
    found = [sum(work(view, n) for n in index_nodes(body)) for body in subgraphs(node.proto)]
    return max(found, default=0) * _turns(view, node)


def network_macs(view: GraphView) -> int:
    """Multiply-accumulates of a graph; sizes that are not known count as one."""
    return sum(work(view, node) for node in view.nodes)


def sample_macs(model: ModelProto, sample: Mapping[str, NDArray[Any]]) -> int:
    """Multiply-accumulates of a graph for one feed: free axes are as long as the feed's.

    Args:
        model: any model.
        sample: input → array.
    """
    told = {name: array.shape for name, array in sample.items()}
    return network_macs(GraphView(model, told))


def _turns(view: GraphView, node: Node) -> int:
    """How often a body is computed, as far as the graph says."""
    if node.op_type == "Loop" and any(node.inputs[:1]):
        count = view.constant(node.inputs[0])
        return 1 if count is None or count.size != 1 else max(1, int(count.item()))
    if node.op_type != "Scan" or not (scanned := node.integer("num_scan_inputs", 0)):
        return 1
    axes = node.integers("scan_input_axes", (0,) * scanned)
    shape = view.nominal_shape(node.inputs[-scanned])
    return shape[axes[0]] if -len(shape) <= axes[0] < len(shape) else 1


def _weighted(
    node: Node, left: tuple[int, ...], right: tuple[int, ...], output: tuple[int, ...]
) -> int:
    if node.op_type == "Conv":
        return prod(output) * prod(right[1:])
    if node.op_type == "ConvTranspose":
        return prod(left) * prod(right[1:])
    transposed = node.op_type == "Gemm" and node.integer("transA", 0)
    return prod(output) * (left[0 if transposed else -1] if left else 1)


def _einsum(equation: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """Of an equation as ``bij,bjk->bik``; one operand alone is only summed or moved."""
    terms = equation.replace(" ", "").split("->")
    operands = [
        _letters(term, len(shape)) for term, shape in zip(terms[0].split(","), shapes, strict=True)
    ]
    size: dict[str, int] = {}
    for letters, shape in zip(operands, shapes, strict=True):
        for letter, dim in zip(letters, shape, strict=True):
            size[letter] = max(dim, size.get(letter, 1))  # "..." broadcasts
    every = [letter for letters in operands for letter in letters]
    dots = {letter for letter in every if letter.startswith(".")}
    once = {letter for letter in every if every.count(letter) == 1}
    result = {*terms[1].replace(".", ""), *dots} if len(terms) > 1 else once | dots
    total, left = 0, set(operands[0])
    for place, letters in enumerate(operands[1:], 1):
        both = left | set(letters)
        total += prod(size[letter] for letter in both)
        left = both & (result.union(*operands[place + 1 :]))
    return total


def _letters(term: str, rank: int) -> list[str]:
    """A name for each axis of an operand; those of "..." are counted from the right."""
    if "..." not in term:
        return list(term)
    before, after = term.split("...")
    hidden = rank - len(before) - len(after)
    return [*before, *(f".{place}" for place in reversed(range(hidden))), *after]
