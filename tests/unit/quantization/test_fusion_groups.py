"""Groups: every Q/DQ edge belongs to one, and leaving one in float splits no kernel."""

from __future__ import annotations

import pytest

from graphs.view import GraphView
from quantization.placement import Placement, place
from quantization.placement.fusion_groups import fusion_groups, leave_float, only
from tests.networks import NETWORKS, Builder, bert, resnet


def edges(placement: Placement) -> set[tuple[str, int]]:
    weights = {(w.node, w.index) for w in placement.weights}
    return weights | {(e.node, e.index) for e in placement.activations}


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_partition_the_edges(name: str) -> None:
    model = NETWORKS[name]()
    placement = place(model, profile="tensorrt")
    groups = fusion_groups(GraphView(model), placement)
    assert [g.position for g in groups] == sorted(g.position for g in groups)
    parts = [edges(only(placement, group)) for group in groups]
    assert set().union(*parts) == edges(placement)
    assert sum(map(len, parts)) == len(edges(placement))
    assert set(placement.int8_nodes) <= {node for group in groups for node in group.nodes}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_group_in_float_takes_its_edges_along(name: str) -> None:
    model = NETWORKS[name]()
    placement = place(model, profile="tensorrt")
    groups = fusion_groups(GraphView(model), placement)
    for group in groups:
        rest = leave_float(placement, [group], why="tried")
        assert edges(rest) == edges(placement) - edges(only(placement, group))
        assert set(rest.int8_nodes) == set(placement.int8_nodes) - set(group.nodes)
        assert all(len(names) > 1 for names in rest.shared)
    assert leave_float(placement, [], why="") == placement
    everything = leave_float(placement, groups, why="all")
    assert not edges(everything)
    assert {f.node for f in everything.floating} >= set(placement.int8_nodes)


def test_the_skip_input_goes_with_the_convolution_it_is_added_to() -> None:
    model = resnet()
    view = GraphView(model)
    placement = place(model, profile="tensorrt")
    adds = [e for e in placement.activations if e.node.startswith("n_Add")]
    assert adds
    for group in fusion_groups(view, placement):
        for edge in adds:
            if edge.node in group.nodes:
                nodes = {node.name: node for node in view.nodes}
                other = nodes[edge.node].inputs[1 - edge.index]
                assert view.producer(other) is nodes[group.name]


def test_both_products_of_an_attention_are_one_group() -> None:
    """One kernel of TensorRT; two layers of OpenVINO."""
    model = bert(layers=1)
    view, products = GraphView(model), ("n_MatMul_3", "n_MatMul_4")
    placement = place(model)
    (group,) = (g for g in fusion_groups(view, placement) if products[1] in g.nodes)
    assert (group.name, group.nodes) == (products[0], products)
    assert group.macs == 2 * 2 * 16 * 16 * 32
    left = leave_float(placement, [group], why="lost", rule="erased")
    assert [(f.node, f.rule) for f in left.floating][-2:] == [(p, "erased") for p in products]
    assert not {*products} & {*left.int8_nodes, *(edge.node for edge in left.activations)}
    groups = {g.name: g for g in fusion_groups(view, place(model, profile="cpu"))}
    assert products[0] not in groups[products[1]].nodes


def test_released_layers_say_why() -> None:
    model = resnet()
    placement = place(model, profile="tensorrt")
    group = fusion_groups(GraphView(model), placement)[1]
    last = leave_float(placement, [group], why="99 % were asked for").floating[-1]
    assert (last.node, last.op_type, last.rule) == (group.name, "Conv", "search")
    assert last.why == "99 % were asked for"


def test_what_is_moved_for_one_layer_goes_with_it() -> None:
    """Else its codes stay when the layer is left in float, and round for nobody."""
    net = Builder()
    x = net.op("Transpose", net.input("x", ("N", 16, 8)), perm=[0, 2, 1])
    one = net.linear(net.op("Reshape", x, net.ints(0, 4, 2, 16)), 16, 32)
    y = net.op("Transpose", net.op("Relu", one), perm=[0, 2, 1, 3])
    model = net.build("moved", net.linear(y, 32, 8), net.linear(y, 32, 4))
    placement = place(model, profile="cpu")
    groups = {group.name: group for group in fusion_groups(GraphView(model), placement)}
    assert groups["n_MatMul_0"].nodes == ("n_Transpose_0", "n_MatMul_0")
    assert groups["n_Transpose_1"].nodes == ("n_Transpose_1",)
    assert groups["n_MatMul_1"].nodes == ("n_MatMul_1",)
    rest = leave_float(placement, [groups["n_MatMul_0"]], why="tried")
    assert {edge.node for edge in rest.activations} == {"n_Transpose_1"}
