"""Products that an Einsum names by letters, written as MatMul: what targets have INT8 for.

Keras' dense and attention layers, flax and ``torch.einsum`` are exported so. Of two terms and
their result, letters are

    stacked     in all three: one product for each
    summed      in both terms
    rows        of the left term and the result
    columns     of the right term and the result

and the product is (stacked, rows, summed) times (stacked, summed, columns). With a constant on one
side there may be any number of each, since its axes are put in order now; of two activations one of
each but the stacked, so that no size needs to be known.

Left as they are: one term or more than two, diagonals (a letter twice in a term), letters that one
term alone has and the result has not, products that sum nothing or have no rows or columns.

Source: ONNX, operator Einsum, https://onnx.ai/onnx/operators/onnx__Einsum.html
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from string import ascii_letters

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from graphs.walk import attributes
from quantization.prepare.writer import Steps, Writer

__all__ = ["write_einsum"]

ELLIPSIS = "..."
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})


@dataclass(frozen=True, kw_only=True)
class _Product:
    """Letters of the two terms and of the result, and what each is."""

    left: str
    right: str
    result: str
    stacked: str
    summed: str
    rows: str
    columns: str


def write_einsum(writer: Writer, node: NodeProto) -> list[NodeProto]:
    """The nodes that take the place of an Einsum; none where it stays."""
    if len(node.input) != 2 or any(writer.kind(name) not in _FLOATS for name in node.input):
        return []
    terms = _terms(writer, node)
    if terms is None:
        return []
    left, right = node.input
    if left in writer.constants and right not in writer.constants:
        left, right, terms = right, left, (terms[1], terms[0], terms[2])
    product = _product(*terms)
    if product is None or left in writer.constants:
        return []
    if right in writer.constants:
        return _times_constant(writer, node, product, left, right)
    single = len(product.summed) == len(product.rows) == len(product.columns) == 1
    return _of_two(writer, node, product, left, right) if single else []


def _times_constant(
    writer: Writer, node: NodeProto, product: _Product, source: str, constant: str
) -> list[NodeProto]:
    values = numpy_helper.to_array(writer.constants[constant])
    sizes = dict(zip(product.right, values.shape, strict=True))
    read = {letter: writer.size(source, axis) for axis, letter in enumerate(product.left)}
    if any(read[letter] not in (None, sizes[letter]) for letter in product.summed):
        return []  # one of them is 1, and repeated
    between = [1] * (len(product.rows) - 1) if product.stacked else []
    shape = [sizes[letter] for letter in product.stacked] + between
    weight = _ordered(values, product.right, product.stacked + product.summed + product.columns)
    weight = weight.reshape([*shape, _size(sizes, product.summed), _size(sizes, product.columns)])
    kept = [0] * len(product.stacked + product.rows)  # as long as they are
    steps = Steps(writer, node)
    source = _turned(steps, source, product.left, product.stacked + product.rows + product.summed)
    if len(product.summed) > 1:
        source = steps("Reshape", source, steps.constant("shape", [*kept, weight.shape[-2]]))
    source = steps("MatMul", source, writer.constant(node, "weight", weight, weight.dtype))
    if len(product.columns) > 1:
        parted = [*kept, *(sizes[letter] for letter in product.columns)]
        source = steps("Reshape", source, steps.constant("shape", parted))
    made = product.stacked + product.rows + product.columns
    _turned(steps, source, made, product.result)
    return steps.finish()


def _of_two(
    writer: Writer, node: NodeProto, product: _Product, left: str, right: str
) -> list[NodeProto]:
    steps = Steps(writer, node)
    rows, columns = product.stacked + product.rows, product.columns
    operands = [
        _turned(steps, left, product.left, rows + product.summed),
        _turned(steps, right, product.right, product.stacked + product.summed + columns),
    ]
    _turned(steps, steps("MatMul", *operands), rows + columns, product.result)
    return steps.finish()


def _turned(steps: Steps, source: str, letters: str, wanted: str) -> str:
    """``source``, whose axes are ``letters``, in another order."""
    if letters == wanted:
        return source
    return steps("Transpose", source, perm=[letters.index(letter) for letter in wanted])


def _product(left: str, right: str, result: str) -> _Product | None:
    """What each letter is; None where the Einsum is no product."""
    terms = (left, right, result)
    if any(len(set(term)) != len(term) for term in terms):
        return None
    if any(sum(letter in term for term in terms) == 1 for letter in left + right + result):
        return None
    product = _Product(
        left=left,
        right=right,
        result=result,
        stacked="".join(letter for letter in left if letter in right and letter in result),
        summed="".join(letter for letter in left if letter in right and letter not in result),
        rows="".join(letter for letter in left if letter not in right),
        columns="".join(letter for letter in right if letter not in left),
    )
    return product if product.summed and product.rows and product.columns else None


def _terms(writer: Writer, node: NodeProto) -> tuple[str, str, str] | None:
    """Letters of both terms and the result, with some for the axes that an ellipsis stands for."""
    equation = attributes(node)["equation"].decode().replace(" ", "")
    given, arrow, result = equation.partition("->")
    terms = given.split(",")
    if not arrow:
        once = sorted(letter for letter in given if letter.isalpha() and given.count(letter) == 1)
        result = ELLIPSIS * (ELLIPSIS in given) + "".join(once)
    if len(terms) != len(node.input):
        return None
    hidden = [_hidden(writer, *pair) for pair in zip(node.input, terms, strict=True)]
    if None in hidden:
        return None
    counts = [count or 0 for count in hidden]
    spare = "".join(letter for letter in ascii_letters if letter not in equation)[: max(counts)]
    left, right = (
        term.replace(ELLIPSIS, spare[len(spare) - count :])
        for term, count in zip(terms, counts, strict=True)
    )
    return left, right, result.replace(ELLIPSIS, spare)


def _hidden(writer: Writer, name: str, term: str) -> int | None:
    """How many axes the ellipsis of a term stands for; None where nobody knows."""
    if ELLIPSIS not in term:
        return 0
    known = writer.constants.get(name)
    rank = writer.rank(name) if known is None else len(known.dims)
    return None if rank is None else rank - len(term) + len(ELLIPSIS)


def _ordered(values: NDArray[np.generic], letters: str, wanted: str) -> NDArray[np.generic]:
    return values.transpose([letters.index(letter) for letter in wanted])


def _size(sizes: dict[str, int], letters: str) -> int:
    return math.prod(sizes[letter] for letter in letters)
