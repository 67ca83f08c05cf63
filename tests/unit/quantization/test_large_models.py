"""A large model is worked on without whole copies of it; what comes of it is the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphs.view import GraphView
from quantization import insert_qdq, place
from quantization.measure import execution
from quantization.measure.execution import load_int8, load_onnxruntime
from quantization.write import bounded_weights, editor
from quantization.write.bounded_weights import quantize_bounded
from tests.networks.running import minmax_ranges

LARGE = 4 << 10  # bytes, in these tests
WORDS, WIDTH = 96, 48


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editor, "_LARGE_BYTES", LARGE)
    monkeypatch.setattr(execution, "_LARGE_BYTES", LARGE)
    monkeypatch.setattr("graphs.view._LARGEST_KEPT_BYTES", LARGE)


def tied(rng: np.random.Generator) -> onnx.ModelProto:
    """A table that words are looked up in and that a product reads as its weight."""
    table = rng.standard_normal((WORDS, WIDTH)).astype(np.float32)
    own = rng.standard_normal((WIDTH, WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "words"], ["x"], name="look"),
        helper.make_node("MatMul", ["x", "own"], ["h"], name="product"),
        helper.make_node("Gemm", ["h", "table"], ["y"], name="again", transB=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tied",
        [value("words", TensorProto.INT64, [8])],
        [value("y", TensorProto.FLOAT, [8, WORDS])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(own, "own")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_constant_that_is_still_read_keeps_its_data(rng: np.random.Generator) -> None:
    model = tied(rng)
    before = model.SerializeToString(deterministic=True)
    placement = place(model)
    assert set(placement.int8_nodes) == {"product", "again"}
    feeds = {"words": rng.integers(0, WORDS, 8)}
    int8 = insert_qdq(model, placement, minmax_ranges(model, placement.tensors, feeds))
    kept = {tensor.name: tensor for tensor in int8.graph.initializer}
    assert "own" not in kept
    np.testing.assert_array_equal(
        numpy_helper.to_array(kept["table"]), GraphView(model).constant("table")
    )
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(int8)
    exact, found = load_onnxruntime(model)(feeds)["y"], load_int8(int8)(feeds)["y"]
    assert np.square(exact - found).sum() < 0.01 * np.square(exact).sum()


def test_a_model_in_a_file_is_the_same_model(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tied(rng)
    feeds = {"words": rng.integers(0, WORDS, 8)}
    in_a_file = load_onnxruntime(model)(feeds)["y"]
    monkeypatch.setattr(execution, "_LARGE_BYTES", 1 << 30)
    np.testing.assert_array_equal(load_onnxruntime(model)(feeds)["y"], in_a_file)


def test_a_large_constant_is_not_kept_twice(rng: np.random.Generator) -> None:
    view = GraphView(tied(rng))
    first, second = view.constant("table"), view.constant("table")
    assert first is not second
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("axis", [0, 1])
def test_channels_are_bounded_a_few_at_a_time(
    axis: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = rng.standard_normal((40, 24)).astype(np.float32) ** 3
    row = values.shape[1 - axis]
    partners = np.arange(row) ^ 1
    whole = quantize_bounded(values, axis, partners)
    monkeypatch.setattr(bounded_weights, "_MOST_VALUES", 7 * row)
    for one, other in zip(whole, quantize_bounded(values, axis, partners), strict=True):
        np.testing.assert_array_equal(one, other)
