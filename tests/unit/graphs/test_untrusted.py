"""Models whose files claim more than they hold."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from artefacts.errors import ModelError
from graphs import untrusted
from graphs.files import load_model

TINY = """<ir_version: 10, opset_import: ["" : 17]>
tiny (float[N,4] x) => (float[N,4] y) { y = Relu (x) }"""


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def external(name: str, shape: tuple[int, ...], location: str, **where: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **where}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def with_function(weight: TensorProto) -> onnx.ModelProto:
    """A model-local function whose Constant keeps its weight in a file."""
    constant = helper.make_node("Constant", [], ["w"], value=weight)
    add = helper.make_node("Add", ["a", "w"], ["b"])
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("mine", "Shift", ["a"], ["b"], [constant, add], opsets)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Shift", ["x"], ["y"], domain="mine")],
        "tiny",
        [info("x", TensorProto.FLOAT, ["N", 4])],
        [info("y", TensorProto.FLOAT, ["N", 4])],
    )
    opsets = [*opsets, helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10)


def test_weights_of_functions_lie_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    weight = rng.normal(size=4).astype(np.float32)
    (folder / "w.bin").write_bytes(weight.tobytes())
    (elsewhere / "w.bin").write_bytes(bytes(16))
    path = saved(with_function(external("w", (4,), "w.bin")), folder)
    monkeypatch.chdir(elsewhere)  # where onnx would look for it later
    found = load_model(path).functions[0].node[0].attribute[0].t
    np.testing.assert_array_equal(numpy_helper.to_array(found), weight)
    assert found.data_location == TensorProto.DEFAULT


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "none.bin"])
def test_weights_of_functions_stay_in_the_folder(tmp_path: Path, location: str) -> None:
    path = saved(with_function(external("w", (4,), location)), tmp_path)
    with pytest.raises(ModelError, match="keeps its data in"):
        load_model(path)


def test_many_tensors_may_not_read_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(4096))
    model = parser.parse_model(TINY)
    for number in range(4):
        model.graph.initializer.append(external(f"w{number}", (1024,), "w.bin", length=4096))
    load_model(saved(model, tmp_path))
    model.graph.initializer.append(external("w4", (1024,), "w.bin", length=4096))
    with pytest.raises(ModelError, match=r"tensors read 20480 bytes of .*, which has 4096, expec"):
        load_model(saved(model, tmp_path))


@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_sparse_weights_that_would_fill_the_memory(tmp_path: Path, where: str) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "huge")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "at")
    sparse = helper.make_sparse_tensor(values, indices, [90_000, 90_000])
    model = parser.parse_model(TINY)
    if where == "initializer":
        model.graph.sparse_initializer.append(sparse)
    else:
        model.graph.node.append(helper.make_node("Constant", [], ["c"], sparse_value=sparse))
    with pytest.raises(ModelError, match=r"sparse weights of 8100000000 elements once they are d"):
        load_model(saved(model, tmp_path))


def test_graphs_of_too_many_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "LARGEST_GRAPH", 10)
    nodes = [helper.make_node("Relu", [f"t{n}"], [f"t{n + 1}"]) for n in range(11)]
    info = helper.make_tensor_value_info
    ends = [info("t0", 1, [1])], [info("t11", 1, [1])]
    graph = helper.make_graph(nodes, "chain", *ends)
    path = saved(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path)
    with pytest.raises(ModelError, match="more than 10 nodes"):
        load_model(path)
    monkeypatch.setattr(untrusted, "LARGEST_GRAPH", 11)
    assert len(load_model(path).graph.node) == 11
    assert os.listdir(tmp_path) == ["m.onnx"]  # noqa: PTH208 - hidden ones included
