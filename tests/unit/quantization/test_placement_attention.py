"""Attention: by the rule or as asked for, whole or not at all; Q, K and V of one product."""

from __future__ import annotations

import pytest

from artefacts.errors import InputError
from quantization.placement import Placement, Profile, place
from tests.networks import bert, convolved_attention, cross_attention, sliced_attention


def edges(placement: Placement) -> set[tuple[str, str, str]]:
    return {(edge.node, edge.tensor, edge.observed) for edge in placement.activations}


@pytest.mark.parametrize(
    ("way", "cut"),
    [
        (
            "split",
            [
                ("n_MatMul_1", "Squeeze_0"),
                ("n_Transpose_1", "Squeeze_1"),
                ("n_MatMul_2", "Squeeze_2"),
            ],
        ),
        (
            "gather",
            [("n_MatMul_1", "Gather_0"), ("n_Transpose_1", "Gather_1"), ("n_MatMul_2", "Gather_2")],
        ),
        (
            "slice",
            [("n_Reshape_0", "Slice_0"), ("n_Reshape_1", "Slice_1"), ("n_Reshape_2", "Slice_2")],
        ),
    ],
)
def test_each_slice_has_a_pair_and_a_range_of_its_own(way: str, cut: list[tuple[str, str]]) -> None:
    placement = place(sliced_attention(way=way))
    assert {(node, tensor, tensor) for node, tensor in cut} <= edges(placement)
    read = {(edge.node, edge.index) for edge in placement.activations}
    assert ("n_MatMul_2", 0) in read  # the Softmax stays where it was
    assert ("n_MatMul_1", 1) not in read
    assert (("n_MatMul_2", 1) in read) == (way != "slice")


@pytest.mark.parametrize("way", ["split", "gather", "slice"])
def test_v_alone_where_the_attention_is_float(way: str) -> None:
    placement = place(sliced_attention(heads=2, width=96, way=way))
    assert {f.rule for f in placement.floating} == {"unfused_attention"}
    read = {edge.node for edge in placement.activations}
    behind = {"split": "n_Squeeze_2", "gather": "n_MatMul_2", "slice": "n_Reshape_2"}[way]
    assert behind in read
    assert len(placement.activations) == 4  # three layers and V
    assert ("n_MatMul_2", 0) not in {(edge.node, edge.index) for edge in placement.activations}


@pytest.mark.parametrize("way", ["split", "gather", "slice"])
def test_k_where_nothing_reads_v(way: str) -> None:
    """A map of what attends to what: the product of Q and K stays in float, their layer INT8."""
    placement = place(sliced_attention(width=96, way=way, values=False))
    assert "n_MatMul_0" in placement.int8_nodes
    assert {f.node for f in placement.floating} == {"n_MatMul_1"}
    behind = {"split": "n_Squeeze_1", "gather": "n_Transpose_1", "slice": "n_Reshape_1"}[way]
    assert [
        edge.node for edge in placement.activations if not edge.node.startswith("n_MatMul")
    ] == [behind]


def test_what_the_user_keeps_in_float_stays_so() -> None:
    placement = place(sliced_attention(), exclude=["n_MatMul_1", "n_MatMul_2"])
    assert {edge.node for edge in placement.activations} == {
        "n_MatMul_0",
        "n_MatMul_3",
        "n_MatMul_4",
    }
    assert ("n_MatMul_2", "Squeeze_2", "Add_0") in edges(
        place(sliced_attention(), exclude=["n_MatMul_0"])
    )


def test_openvino_reads_them_as_before() -> None:
    read = {
        (edge.node, edge.observed) for edge in place(sliced_attention(), profile="cpu").activations
    }
    assert ("n_Reshape_0", "Add_0") in read
    assert "n_Transpose_1" not in {node for node, _ in read}


@pytest.mark.parametrize("profile", ["tensorrt", "cpu"])
def test_attention_is_what_is_asked_for(profile: Profile) -> None:
    """One that the rule leaves in float becomes INT8, one that it quantizes float."""
    products = {"n_MatMul_3", "n_MatMul_4"}
    unknown, known = bert(length="length", layers=1), bert(layers=1)
    everywhere = place(unknown, profile=profile, attention="int8")
    assert products <= set(everywhere.int8_nodes)
    nowhere = place(known, profile=profile, attention="float")
    assert {f.node for f in nowhere.floating if f.rule == "float_attention"} == products
    assert not products & {edge.node for edge in nowhere.activations}
    others = set(place(known, profile=profile).int8_nodes) - products
    assert set(nowhere.int8_nodes) == others
    assert place(known, profile=profile, attention="auto") == place(known, profile=profile)


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize(("side", "size"), [(5, 32), (24, 24)], ids=["small", "large"])
def test_attention_between_convolutions_is_int8_at_every_size(
    transposed: bool, side: int, size: int
) -> None:
    model = convolved_attention(transposed=transposed, side=side, size=size)
    placement = place(model)
    assert {"n_MatMul_0", "n_MatMul_1"} <= set(placement.int8_nodes)
    read = {(edge.node, edge.index) for edge in placement.activations}
    assert {(f"n_MatMul_{n}", index) for n in range(2) for index in range(2)} <= read


@pytest.mark.parametrize(
    ("queries", "keys", "heads", "size", "why"),
    [
        (1024, 16, 2, 32, None),
        (64, 512, 2, 32, None),
        (64, 513, 2, 32, "over 64×513 positions, fused in INT8 up to 512 attended to"),
        (16, 16, 2, 24, "heads of 24 channels, fused in INT8 for 16, 32, 64"),
        (600, 600, 1, 24, None),  # one head: float16 has no kernel for it either
    ],
)
def test_what_is_attended_to_decides(
    queries: int, keys: int, heads: int, size: int, why: str | None
) -> None:
    placement = place(cross_attention(queries=queries, keys=keys, heads=heads, size=size))
    found = {f.node: f.why for f in placement.floating if f.rule == "unfused_attention"}
    assert set(found) == (set() if why is None else {"n_MatMul_3", "n_MatMul_4"})
    assert all(
        text == f"attention {why}" or text == f"attention with {why}" for text in found.values()
    )


def test_another_attention_is_refused() -> None:
    with pytest.raises(InputError, match="attention is 'half', expected one of auto, int8, float"):
        place(bert(layers=1), attention="half")  # type: ignore[arg-type]


@pytest.mark.parametrize("product", ["n_MatMul_3", "n_MatMul_4"])
def test_half_an_attention_takes_the_other_with_it(product: str) -> None:
    placement = place(bert(), exclude=[product])
    (other,) = {"n_MatMul_3", "n_MatMul_4"} - {product}
    assert {f.node: f.rule for f in placement.floating} == {
        product: "excluded",
        other: "half_attention",
    }
    (why,) = (f.why for f in placement.floating if f.node == other)
    assert why == f"the attention's other product, {product}, stays in floating point"
    assert other in place(bert(), exclude=[product], attention="int8").int8_nodes
    assert other in place(bert(), exclude=[product], profile="cpu").int8_nodes
