"""An Einsum that is a product becomes a MatMul that computes the same; others stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantization.placement import place
from quantization.prepare.prepare import prepare
from tests.networks import Builder
from tests.networks.running import run

SIZES = dict(zip("abcdefgh", (2, 3, 4, 5, 6, 7, 2, 3), strict=True))
HIDDEN = (3, 2)  # axes of an ellipsis


def terms_of(equation: str) -> list[str]:
    return equation.replace(" ", "").split("->")[0].split(",")


def shape_of(term: str) -> list[int]:
    parts = [[SIZES[letter] for letter in part] for part in term.split("...")]
    return parts[0] if len(parts) == 1 else [*parts[0], *HIDDEN, *parts[1]]


def einsum(equation: str, constant: int | None, *, free: bool = False) -> onnx.ModelProto:
    """Of terms of which one may be a constant."""
    net, operands = Builder(1), []
    for index, term in enumerate(terms_of(equation)):
        shape = shape_of(term)
        if index == constant:
            operands.append(net.constant(net.rng.normal(size=shape).astype(np.float32)))
        else:
            dims = [f"d{index}{axis}" for axis in range(len(shape))] if free else shape
            operands.append(net.input(f"x{index}", dims))
    return net.build("einsum", net.op("Einsum", *operands, equation=equation))


def computes_the_same(model: onnx.ModelProto, prepared: onnx.ModelProto, equation: str) -> None:
    rng, shapes = np.random.default_rng(2), [shape_of(term) for term in terms_of(equation)]
    feeds = {
        value.name: rng.normal(size=shapes[int(value.name[1:])]).astype(np.float32)
        for value in model.graph.input
    }
    ((name, wanted),) = run(model, feeds, optimize=False).items()
    found = run(prepared, feeds, optimize=False)[name]
    assert found.shape == wanted.shape
    # Each sum has at most 210 terms, in another order.
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize(
    ("equation", "constant", "operators"),
    [
        ("abc,cd->abd", 1, ["MatMul"]),  # flax
        ("...c,cd->...d", 1, ["MatMul"]),
        ("...c,dc->...d", 1, ["MatMul"]),
        ("abc,cde->abde", 1, ["MatMul", "Reshape"]),  # Keras, queries
        ("abcd,cde->abe", 1, ["Reshape", "MatMul"]),  # Keras, the end of an attention
        ("abcd,ced->abe", 1, ["Reshape", "MatMul"]),
        ("abcd,bde->abce", 1, ["Transpose", "MatMul", "Transpose"]),  # weights of each head
        ("abcd,bed->abce", 1, ["Transpose", "MatMul", "Transpose"]),  # SAM, relative positions
        ("ab,bc", 1, ["MatMul"]),
        ("ab, bc -> ca", 1, ["MatMul", "Transpose"]),
        ("cb,ab->ac", 0, ["MatMul"]),
        ("abcd,abed->abce", None, ["Transpose", "MatMul"]),
        ("acbd,aebd->abce", None, ["Transpose", "Transpose", "MatMul"]),  # scores
        ("abce,aebd->acbd", None, ["Transpose", "MatMul", "Transpose"]),  # values
        ("...ab,...bc->...ac", None, ["MatMul"]),
    ],
)
def test_products(equation: str, constant: int | None, operators: list[str], *, free: bool) -> None:
    model = einsum(equation, constant, free=free)
    prepared = prepare(model)
    assert [node.op_type for node in prepared.graph.node] == operators
    computes_the_same(model, prepared, equation)
    assert prepare(prepared).SerializeToString() == prepared.SerializeToString()


@pytest.mark.parametrize(
    ("equation", "constant"),
    [
        ("ab->ba", None),  # one term
        ("ab,bc,cd->ad", None),
        ("aab,bc->ac", 1),  # a diagonal
        ("abc,cd->ad", 1),  # a sum of one term alone
        ("ab,ab->a", 1),  # no rows
        ("abc,bc->ab", 1),  # no columns
        ("ab,cd->abcd", 1),  # no sum
        ("abcd,cde->abe", None),  # sizes of activations that would be multiplied
    ],
)
def test_others_stay(equation: str, constant: int | None) -> None:
    model = einsum(equation, constant)
    prepared = prepare(model)
    assert [node.op_type for node in prepared.graph.node] == ["Einsum"]
    computes_the_same(model, prepared, equation)


@given(
    st.permutations("abcde").flatmap(
        lambda letters: st.tuples(
            st.just("".join(letters)),
            *(st.integers(1, 3) for _ in range(3)),
            st.permutations(range(5)),
            st.sampled_from([None, 0, 1]),
        )
    )
)
def test_any_order_of_any_axes(
    drawn: tuple[str, int, int, int, list[int], int | None],
) -> None:
    """Rows, columns, summed and stacked letters, as they come."""
    letters, first, second, third, order, constant = drawn
    left, right = letters[: first + 1], letters[second:]
    kept = [letter for letter in letters if letter not in letters[third]]
    result = "".join(sorted(kept, key=lambda letter: order[letters.index(letter)]))
    result = "".join(letter for letter in result if letter in left + right)
    equation = f"{left},{right[::-1]}->{result}"
    model = einsum(equation, constant)
    computes_the_same(model, prepare(model), equation)


def test_a_term_that_repeats_its_only_value_stays() -> None:
    """The axis of one value is read as often as the other term has values."""
    net = Builder()
    x = net.input("x", (2, 1))
    weight = net.weight((4, 3), 4)
    prepared = prepare(net.build("repeated", net.op("Einsum", x, weight, equation="ab,bc->ac")))
    assert [node.op_type for node in prepared.graph.node] == ["Einsum"]


@pytest.mark.parametrize("profile", ["tensorrt", "cpu"])
def test_attention_of_keras_is_placed(profile: str) -> None:
    """Dense layers and both products have INT8 where those of MatMul have it."""
    net = Builder(3)
    x = net.input("x", ("N", 16, 32))
    q, k, v = (
        net.op("Einsum", x, net.weight((32, 4, 8), 32), equation="abc,cde->abde") for _ in range(3)
    )
    scores = net.op("Einsum", k, net.op("Mul", q, net.scalar(8**-0.5)), equation="aecd,abcd->acbe")
    mixed = net.op("Einsum", net.op("Softmax", scores, axis=-1), v, equation="acbe,aecd->abcd")
    y = net.op("Einsum", mixed, net.weight((4, 8, 32), 32), equation="abcd,cde->abe")
    placement = place(prepare(net.build("keras", y)), profile=profile)
    assert len(placement.int8_nodes) == (6 if profile == "cpu" else 4)
