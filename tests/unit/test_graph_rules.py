"""Only `graphs/` touches nodes, names them and lists operators."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from onnx import defs

from tests.unit.test_architecture import ROOT, modules

# Words that end the name of what holds nodes; ``use.node`` and its like are one node each.
CHANGES = ("add", "append", "extend", "insert", "pop", "remove")
READS = ("enumerate", "iter", "len", "list", "reversed", "tuple")
HOLDERS = ("graph", "body", "branch", "function", "model", "subgraph")


def last_name(value: ast.expr) -> str:
    if isinstance(value, ast.Attribute):
        return value.attr
    if isinstance(value, ast.Subscript):
        return last_name(value.value)
    return value.id if isinstance(value, ast.Name) else ""


def iterated(tree: ast.AST) -> set[ast.expr]:
    """Expressions that are gone through, measured, indexed, unpacked or asked for a method."""
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.For, ast.comprehension)):
            found.append(node.iter)
        elif isinstance(node, (ast.Subscript, ast.Starred)):
            found.append(node.value)
        elif isinstance(node, ast.Call):
            called = last_name(node.func)
            if isinstance(node.func, ast.Attribute) and called in CHANGES:
                found.append(node.func.value)
            if isinstance(node.func, ast.Name) and called in READS:
                found.extend(node.args)
    return set(found)


def opens_a_graph(tree: ast.AST) -> list[int]:
    """Lines that read the nodes of an ONNX graph, or the bodies in a node's attributes."""
    lists = iterated(tree)
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (
            (node.attr == "node" and (last_name(node.value) in HOLDERS or node in lists))
            or (node.attr in ("g", "graphs") and last_name(node.value) in ("attribute", "a"))
        )
    ]


def names_a_node(tree: ast.AST) -> list[int]:
    """Lines that give an ONNX node a name, or make one up for a node that has none."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and last_name(node.func) in ("make_node", "NodeProto"):
            named = any(entry.arg == "name" for entry in node.keywords)
            found += [node.lineno] if named or any(e.arg is None for e in node.keywords) else []
        elif isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [
                node.lineno
                for target in targets
                if isinstance(target, ast.Attribute)
                and target.attr == "name"
                and last_name(target.value) not in ("self", "tensor", "graph")
            ]
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
            first = node.values[0]
            named = isinstance(first, ast.Attribute) and first.attr == "name"
            of_node = named and last_name(first.value) in ("node", "proto", "inner", "maker")
            found += [node.lineno] if of_node else []
    return found


def lists_operators(tree: ast.AST) -> list[int]:
    """Lines with a literal list of four operators or more, or a table of facts about as many.

    A table from operators to functions is code, a rule may name the two or three it is about.
    """
    known = {schema.name for schema in defs.get_all_schemas_with_history()}
    found = []
    for node in ast.walk(tree):
        words: list[object] = []
        if isinstance(node, (ast.Set, ast.Tuple, ast.List)):
            words = [e.value for e in node.elts if isinstance(e, ast.Constant)]
        elif isinstance(node, ast.Dict):
            facts = zip(node.keys, node.values, strict=True)
            words = [
                key.value
                for key, value in facts
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
            ]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = [*node.value.split()]
            if len(known.intersection(words)) < 0.8 * len(words):
                continue  # a sentence
        if len(known.intersection(map(str, words))) >= 4:
            found.append(node.lineno)
    return found


# What a target has or lacks stays with the target.
TARGETS_OPERATORS = {
    "engines/openvino/rewrites/channel_constants.py": "operators of OpenVINO",
    "engines/openvino/rewrites/unsigned_codes.py": "operators of OpenVINO",
    "quantization/lint/operators.py": "what NVIDIA's parser lacks",
    "quantization/placement/edges_dla.py": "what DLA has",
}


def outside_graphs() -> list[Path]:
    return [p for p in (*modules(), ROOT / "build_engine.py") if p.parts[-2] != "graphs"]


@pytest.mark.parametrize("path", outside_graphs(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_graphs_touches_nodes_names_them_and_lists_operators(path: Path) -> None:
    relative = str(path.relative_to(ROOT))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    opened, named, listed = opens_a_graph(tree), names_a_node(tree), lists_operators(tree)
    assert not opened, f"{relative}:{opened}: go through graphs.walk, GraphView or GraphEditor"
    assert not named, f"{relative}:{named}: take a name from graphs.names"
    if relative in TARGETS_OPERATORS:
        assert listed, f"{relative} lists no operators any more: take its exception away"
    else:
        assert not listed, f"{relative}:{listed}: a meaning of operators is a column of the table"


@pytest.mark.parametrize(
    "source",
    [
        "for node in model.graph.node: pass",
        "len(copy.graph.node)",
        "xs = [n for n in functions[key].node]",
        "model.graph.node[3].input[0] = name",
        "body.node.insert(0, node)",
        "nodes = self.graph.node",
        "for inner in attribute.graphs: pass",
        "walk(attribute.g)",
    ],
)
def test_touching_nodes_is_noticed(source: str) -> None:
    assert opens_a_graph(ast.parse(source))


@pytest.mark.parametrize("source", ["use.node.op_type", "f(edge.node)", "(w.node, w.index)"])
def test_one_node_may_be_held(source: str) -> None:
    assert not opens_a_graph(ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "helper.make_node('Add', a, b, name='x')",
        "onnx.NodeProto(op_type='Add', name=stem)",
        "helper.make_node('Add', a, b, **more)",
        "node.name = 'x'",
        "print(node.name or node.output[0])",
    ],
)
def test_naming_a_node_is_noticed(source: str) -> None:
    assert names_a_node(ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "X = frozenset({'Conv', 'Gemm', 'MatMul', 'Relu'})",
        "X = ('Add', 'Mul', 'Div', 'Sub', 'Thing')",
        "X = frozenset('Add Mul Div Sub'.split())",
        "X = {'Exp': 'grows', 'Pow': 'grows', 'Log': 'sinks', 'Reciprocal': 'grows'}",
    ],
)
def test_a_list_of_operators_is_noticed(source: str) -> None:
    assert lists_operators(ast.parse(source))
    assert not lists_operators(ast.parse("X = {'Exp': f, 'Pow': f, 'Log': g, 'Sub': h}"))
