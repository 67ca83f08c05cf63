"""What nodes are called, and that new names are free everywhere, in bodies too."""

from __future__ import annotations

import onnx
from onnx import helper, parser

from graphs.names import Names, name_nodes, node_names, replacement, stem
from graphs.view import GraphView

BRANCHES = """
<ir_version: 8, opset_import: ["" : 17]>
g (bool c, float[2] x) => (float[2] y)
{
  y = If (c) <
    then_branch = t () => (float[2] inner) { inner = Neg(x) },
    else_branch = e () => (float[2] y_scale) { y_scale = Abs(x) }
  >
}
"""


def nodes_named(*names: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Relu", ["x"], [f"y{place}"], name=name)
        for place, name in enumerate(names)
    ]


def test_a_node_without_a_name_is_called_by_operator_and_output() -> None:
    assert node_names(nodes_named("", "b")) == ["Relu:y0", "b"]


def test_of_nodes_with_one_name_the_first_keeps_it() -> None:
    assert node_names(nodes_named("a", "a", "a")) == ["a", "a:y1", "a:y2"]
    assert node_names(nodes_named("a:y1", "a", "a")) == ["a:y1", "a", "a:y2"]
    assert node_names(nodes_named("a:y2", "a", "a")) == ["a:y2", "a", "a:y2:2"]


def test_views_and_written_names_agree() -> None:
    graph = helper.make_graph(nodes_named("", "a", "a", ""), "g", [], [])
    seen = [node.name for node in GraphView(helper.make_model(graph)).nodes]
    name_nodes(graph)
    assert [node.name for node in graph.node] == seen == ["Relu:y0", "a", "a:y2", "Relu:y3"]


def test_new_names_are_not_those_of_bodies() -> None:
    names = Names(parser.parse_model(BRANCHES).graph)
    assert names.tensor("inner") == "inner_1"
    assert names.tensor("y_scale") == "y_scale_1"
    assert names.tensor("y_scale") == "y_scale_2"
    assert names.tensor("free") == "free"


def test_nodes_and_tensors_have_names_of_their_own() -> None:
    model = parser.parse_model(BRANCHES)
    model.graph.node[0].name = "branches"
    names = Names(model.graph)
    assert names.node("Cast", ["x"], ["z"], wanted="x", to=1).name == "x"
    assert names.node("Cast", ["x"], ["z"], wanted="branches", to=1).name == "branches_1"
    assert names.tensor("branches") == "branches"


def test_a_replacement_takes_the_name() -> None:
    (old,) = nodes_named("relu")
    new = replacement(old, "Clip", ["x", "low"], old.output)
    assert (new.name, new.op_type, list(new.output)) == ("relu", "Clip", ["y0"])
    assert stem(new) == "relu"
    assert stem(nodes_named("")[0]) == "y0"
