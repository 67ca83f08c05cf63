"""An engine whose outputs are mostly INT8's errors is not handed over without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.accuracy import AccuracyResult
from benchmarks.accuracy.agreement import Agreement, OutputAgreement
from graphs.view import GraphView
from pipeline.drowned import drowned_outputs, reordered_outputs
from tests.networks import Builder
from tests.networks.choosing import best_boxes

ENGINE = Path("m.engine")


def view() -> GraphView:
    """One output behind a layer, one behind an order."""
    net = Builder()
    scores = net.gemm(net.input("x", ("N", 8)), 8, 8)
    best = net.op("TopK", scores, net.ints(3), outputs=2)
    return GraphView(net.build("net", scores, net.relu(best)))


def result(
    levels: dict[str, float | None], same: float | None = None, metric: str = ""
) -> AccuracyResult:
    outputs = {
        name: OutputAgreement(sqnr_db=level, cosine=0.5, max_abs_error=1.0)
        for name, level in levels.items()
    }
    agreement = Agreement(reference="FP32 ONNX", outputs=outputs, top1=same)
    figures = {metric: 0.7} if metric else {}
    return AccuracyResult(metric=metric, figures=figures, samples=8, agreement=agreement)


@pytest.mark.parametrize("same", [None, 0.4])
def test_the_worst_output_is_named_with_what_to_do(same: float | None) -> None:
    levels = {"boxes": 31.0, "scores": 4.25, "same": None}
    (said,) = drowned_outputs(result(levels, same), view(), ENGINE)
    assert said.startswith("output scores keeps 4.2 dB of FP32 in INT8, expected 10 dB or more")
    assert "--min-sqnr 15" in said
    assert "int8 sensitivity m.engine" in said


@pytest.mark.parametrize(
    "found",
    [
        None,
        result({"y": 10.0}),
        result({"y": None}),
        result({}),
        result({"scores": 7.0}, same=0.95),
        result({"scores": 7.0}, metric="top1"),
        AccuracyResult(metric="", figures={}, samples=8),
    ],
)
def test_what_is_near_or_known_to_be_right_is_not(found: AccuracyResult | None) -> None:
    assert drowned_outputs(found, view(), ENGINE) == []


def test_what_is_put_in_order_is_no_measure() -> None:
    scores, ordered = view().outputs
    assert drowned_outputs(result({ordered: 4.0}), view(), ENGINE) == []
    (said,) = drowned_outputs(result({ordered: 4.0, scores: 5.0}), view(), ENGINE)
    assert said.startswith(f"output {scores} keeps 5.0 dB")


def test_what_is_picked_by_its_place_is_explained() -> None:
    """Answers that are sorted are always the same, and no comfort."""
    graph = GraphView(best_boxes())
    boxes, best, classes = graph.outputs
    found = result({boxes: 4.0, best: 5.0, classes: 2.0}, same=1.0)
    (note,) = reordered_outputs(found, graph)
    assert note.strip().startswith(f"{boxes}, {classes}: which values are largest")
    assert "--task" in note
    for other in (result({boxes: 30.0, best: 4.0}), result({boxes: 4.0}, metric="map"), None):
        assert reordered_outputs(other, graph) == []


def test_what_is_put_in_order_inside_a_branch_is_no_measure_either() -> None:
    """A detector that answers for pictures without boxes, too: its best are chosen in an If."""
    net = Builder()
    x = net.input("x", ("N", 16))
    scores = net.gemm(x, 16, 4)
    inside = [
        helper.make_node("TopK", [scores, "two"], ["best", "places"], axis=1),
        helper.make_node("Identity", ["best"], ["chosen"]),
    ]
    two = numpy_helper.from_array(np.array([2]), "two")
    value = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)
    found = helper.make_graph(inside, "found", [], [value], [two])
    empty = helper.make_graph(
        [helper.make_node("Identity", [scores], ["all"])],
        "empty",
        [],
        [helper.make_tensor_value_info("all", TensorProto.FLOAT, None)],
    )
    best = net.op("ReduceMax", scores, keepdims=0)
    any_box = net.op("Greater", best, net.constant(np.zeros((), np.float32)))
    chosen = net.op("If", any_box, then_branch=found, else_branch=empty)
    graph = GraphView(net.build("detector", chosen))
    assert drowned_outputs(result({chosen: 4.0}), graph, ENGINE) == []
