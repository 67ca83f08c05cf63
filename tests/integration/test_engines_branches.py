"""INT8 layers behind branches and loops: right in the first request of every shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import engines
from engines import BuildOptions
from engines.openvino.library import core, openvino
from engines.openvino.rewrites.branches import await_branches
from quantization.placement import place
from quantization.prepare.prepare import prepare
from quantization.write.insert import insert_qdq
from tests.integration.cpu_engines import answers
from tests.networks import Builder
from tests.networks.running import minmax_ranges, run, sqnr_db

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

Dim = int | str
WIDTH = 24


def _body(name: str, op_type: str, source: str) -> onnx.GraphProto:
    made = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node(op_type, [source], [f"{name}_y"])], name, [], [made])


def branched(batch: Dim, tokens: Dim, reader: str) -> onnx.ModelProto:
    """What a branch makes, a dense layer, and what reads it."""
    net = Builder(1, opset=18)
    x = net.input("x", (batch, tokens, WIDTH))
    large = net.op("Greater", net.op("ReduceMax", x, keepdims=0), net.scalar(0.5))
    bodies = {"then_branch": _body("a", "Neg", x), "else_branch": _body("b", "Tanh", x)}
    return _with_layer(net, net.op("If", large, **bodies), reader)


def looped(batch: Dim, tokens: Dim, reader: str) -> onnx.ModelProto:
    """The same behind a loop of two turns."""
    net = Builder(2, opset=18)
    x = net.input("x", (batch, tokens, WIDTH))
    nodes = [
        helper.make_node("Tanh", ["state"], ["next"]),
        helper.make_node("Identity", ["go"], ["on"]),
    ]
    given = [("turn", TensorProto.INT64, []), ("go", TensorProto.BOOL, [])]
    given += [("state", TensorProto.FLOAT, [batch, tokens, WIDTH])]
    made = [("on", TensorProto.BOOL, []), ("next", TensorProto.FLOAT, [batch, tokens, WIDTH])]
    values = [[helper.make_tensor_value_info(*each) for each in kind] for kind in (given, made)]
    turns, start = net.constant(np.array(2)), net.constant(np.array(True))
    y = net.op("Loop", turns, start, x, body=helper.make_graph(nodes, "turn", *values))
    return _with_layer(net, net.op("Reshape", y, net.ints(0, 0, WIDTH)), reader)


def _with_layer(net: Builder, x: str, reader: str) -> onnx.ModelProto:
    y = net.op("Add", net.op("MatMul", x, net.weight((WIDTH, 2 * WIDTH), WIDTH)), net.bias(48))
    if reader == "Split":
        y = net.op("Split", y, net.ints(WIDTH, WIDTH), outputs=2, axis=-1)
    elif reader == "Softmax":
        y = net.op("Softmax", y, axis=-1)
    elif reader == "Concat":
        y = net.op("Concat", y, y, axis=1)
    return net.build("branches", y)


@pytest.mark.parametrize("reader", ["Split", "Softmax", "Concat", "nothing"])
@pytest.mark.parametrize(("batch", "tokens"), [("N", "T"), (1, "T"), ("N", 4)])
@pytest.mark.parametrize("network", [branched, looped])
def test_the_first_request_of_every_shape(
    network, batch: Dim, tokens: Dim, reader: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    model = prepare(network(batch, tokens, reader))

    def inputs(size: int) -> dict[str, np.ndarray]:
        shape = [size if isinstance(each, str) else each for each in (batch, tokens)]
        return {"x": rng.normal(size=(*shape, WIDTH)).astype(np.float32)}

    placement = place(model, profile="cpu", portable=engines.cpu_isa() == "portable")
    int8 = insert_qdq(model, placement, minmax_ranges(model, placement.tensors, inputs(4)))
    onnx.save(int8, tmp_path / "m.onnx")
    options = BuildOptions(target="cpu", threads=1, precision="int8")
    engines.build(tmp_path / "m.onnx", tmp_path / "m.engine", options)
    with engines.load(tmp_path / "m.engine") as engine:
        for size in (2, 5, 3, 9):
            feeds = inputs(size)
            found = engine(feeds)
            for name, values in run(int8, feeds, optimize=False).items():
                assert sqnr_db(values, found[name]) > 35, size


def test_a_branch_that_reads_an_output_of_the_network(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Of a file, OpenVINO takes what the body reads for what it makes."""
    net = Builder(3, opset=18)
    x = net.op("Tanh", net.input("x", ("N", WIDTH)))
    large = net.op("Greater", net.op("ReduceMax", x, keepdims=0), net.scalar(0.5))
    bodies = {"then_branch": _body("a", "Neg", x), "else_branch": _body("b", "Exp", x)}
    model = net.build("outputs", x, net.op("If", large, **bodies))
    feeds = {"x": rng.normal(size=(3, WIDTH)).astype(np.float32)}
    found = answers(tmp_path, model, feeds, precision="fp32")
    for name, values in run(model, feeds).items():
        assert sqnr_db(values, found[name]) > 80, name


@pytest.mark.parametrize(("batch", "count"), [("N", 1), (2, 0)])
def test_fixed_shapes_wait_for_nothing(batch: Dim, count: int) -> None:
    network = core().read_model(branched(batch, 4, "Split").SerializeToString())
    assert await_branches(openvino(), network) == count
