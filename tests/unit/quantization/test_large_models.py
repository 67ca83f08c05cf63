"""A large model is worked on without whole copies of it; what comes of it is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphs.view import GraphView
from quantization import insert_qdq, place
from quantization.measure import execution, own_error
from quantization.measure.execution import load_int8, load_onnxruntime
from quantization.measure.own_error import own_sqnr_db
from quantization.write import bounded_weights, editor
from quantization.write.bounded_weights import quantize_bounded
from tests.networks.running import minmax_ranges

LARGE = 4 << 10  # bytes, in these tests
WORDS, WIDTH = 96, 48


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editor, "_LARGE_BYTES", LARGE)
    monkeypatch.setattr(execution, "LARGE_BYTES", LARGE)
    monkeypatch.setattr(own_error, "_LARGE_BYTES", LARGE)
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
    monkeypatch.setattr(execution, "LARGE_BYTES", 1 << 30)
    np.testing.assert_array_equal(load_onnxruntime(model)(feeds)["y"], in_a_file)


@pytest.mark.parametrize("scores", [False, True])
def test_other_outputs_of_a_model_in_a_file(
    scores: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tied(rng)
    model.graph.node.append(helper.make_node("Softmax", ["y"], ["p"], name="choice"))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("p", TensorProto.FLOAT, None))
    feeds = {"words": rng.integers(0, WORDS, 8)}
    edits = {name: getattr(execution, name) for name in ("with_outputs", "before_scores")}
    for name, edit in edits.items():

        def light(given: onnx.ModelProto, *names: object, edit: Any = edit) -> onnx.ModelProto:
            bytes_held = max(len(tensor.raw_data) for tensor in given.graph.initializer)
            assert bytes_held < LARGE, "a large model was copied for its outputs"
            edited: onnx.ModelProto = edit(given, *names)
            return edited

        monkeypatch.setattr(execution, name, light)
    found = load_onnxruntime(model, outputs=["h", "p"], scores=scores)(feeds)
    assert list(found) == ["h", "p"]
    monkeypatch.undo()
    wanted = load_onnxruntime(model, outputs=["h", "p"], scores=scores)(feeds)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
    assert (found["p"].min() >= 0) == scores
    assert [value.name for value in model.graph.output] == ["p"]


def test_what_a_layer_loses_is_measured_without_copies_of_weights(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tied(rng)
    placement = place(model)
    feeds = {"words": rng.integers(0, WORDS, 8)}
    written: list[tuple[onnx.ModelProto, dict[str, TensorProto]]] = []
    save = own_error.save_external

    def noted(probe: onnx.ModelProto, path: Path, *, elsewhere: dict[str, TensorProto]) -> None:
        written.append((probe, elsewhere))
        save(probe, path, elsewhere=elsewhere)

    monkeypatch.setattr(own_error, "save_external", noted)
    int8 = insert_qdq(model, placement, minmax_ranges(model, placement.tensors, feeds))
    before = int8.SerializeToString(deterministic=True)
    large = own_sqnr_db(model, int8, placement.int8_nodes, [feeds])
    ((probe, elsewhere),) = written
    assert {"own_float", "table_float", "table_int8"} <= elsewhere.keys()
    held = {tensor.name for tensor in probe.graph.initializer if tensor.HasField("raw_data")}
    assert held.isdisjoint(elsewhere)
    assert int8.SerializeToString(deterministic=True) == before
    monkeypatch.undo()
    small = own_sqnr_db(model, int8, placement.int8_nodes, [feeds])
    assert large == pytest.approx(small, abs=0.01)  # the order of sums


def test_weights_are_dequantized_when_they_are_read(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In onnxruntime's usual order all of them are, and held, before the first layer runs."""
    orders = []
    session = onnxruntime.InferenceSession

    def noted(source: object, options: onnxruntime.SessionOptions, **given: object) -> object:
        orders.append(options.execution_order)
        return session(source, options, **given)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    load_int8(tied(rng))
    assert orders == [onnxruntime.ExecutionOrder.PRIORITY_BASED]


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
