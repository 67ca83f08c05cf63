"""What of a model can be compared with its INT8 version."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from graphs.comparable import (
    before_scores,
    chosen_places,
    chosen_shapes,
    comparable_outputs,
    with_outputs,
)
from graphs.view import GraphView
from quantization.measure.execution import load_onnxruntime
from tests.networks import Builder
from tests.networks.choosing import (
    best_boxes,
    detector_with_suppression,
    masked,
    segmenter,
    suppression_in_a_branch,
    two_stages,
)
from tests.networks.running import random_feeds


@pytest.mark.parametrize(
    ("model", "judged"),
    [
        (detector_with_suppression(), {"Mul_0", "Sigmoid_1", "Squeeze_0", "Transpose_1"}),
        (suppression_in_a_branch(), {"Mul_0", "Sigmoid_1", "Squeeze_0", "Transpose_1", "best"}),
        (two_stages(), {"Mul_0", "Relu_2", "Sigmoid_1", "Squeeze_0"}),
    ],
    ids=lambda value: value.graph.name if isinstance(value, onnx.ModelProto) else "",
)
def test_what_suppression_chooses_from_is_compared(
    model: onnx.ModelProto, judged: set[str], rng: np.random.Generator
) -> None:
    view = GraphView(model)
    assert chosen_shapes(view) >= set(view.outputs)
    names = comparable_outputs(view)
    assert set(names) == judged
    changed = with_outputs(model, names)
    onnx.checker.check_model(changed, full_check=True)
    found = [load_onnxruntime(changed)(random_feeds(model, rng)) for _ in range(2)]
    assert {name: x.shape for name, x in found[0].items()} == {
        n: x.shape for n, x in found[1].items()
    }
    assert with_outputs(changed, names) is changed


def test_scores_are_compared_and_not_classes() -> None:
    model = segmenter()
    assert chosen_shapes(GraphView(model)) == set()
    assert comparable_outputs(GraphView(model)) == ("Conv_3",)


def test_what_the_best_are_picked_from_is_compared() -> None:
    view = GraphView(best_boxes())
    boxes, best, classes = view.outputs
    assert chosen_shapes(view) == set()
    assert {boxes, classes} <= chosen_places(view)
    assert best not in chosen_places(view)
    assert set(comparable_outputs(view)) == {"Transpose_0", "ReduceMax_0", best}


def test_what_a_layer_makes_of_the_best_is_an_answer() -> None:
    view = GraphView(best_boxes(decoded=True))
    assert not chosen_places(view).isdisjoint(view.nodes[-2].inputs)
    assert comparable_outputs(view) == view.outputs


def test_an_order_that_an_input_says_is_the_same_in_int8() -> None:
    net = Builder()
    words = net.input("words", ("N", 6), TensorProto.INT64)
    last = net.op("ArgMax", words, axis=1)
    states = net.relu(net.linear(net.input("x", ("N", 6, 4)), 4, 4))
    rows = net.op("Expand", net.op("Unsqueeze", last, net.ints(2)), net.ints(1, 1, 4))
    view = GraphView(net.build("last word", net.op("GatherElements", states, rows, axis=1)))
    assert chosen_places(view) == set()


def test_sizes_are_no_choice() -> None:
    net = Builder()
    y = net.relu(net.conv(net.input("x", ("N", 4, 6, 6)), 8))
    model = net.build("sized", y, net.op("Shape", y))
    assert comparable_outputs(GraphView(model)) == ("Relu_0", "Shape_0")


def test_places_that_an_input_says_are_the_same_in_int8() -> None:
    view = GraphView(masked())
    assert chosen_shapes(view) == set()
    assert comparable_outputs(view) == view.outputs


def classifier(ending: str) -> onnx.ModelProto:
    """Logits, and what comes behind them."""
    net = Builder()
    x = net.op("Flatten", net.op("GlobalAveragePool", net.conv(net.input("x", (1, 4, 6, 6)), 8)))
    net.channels[x] = 8
    y = net.op(ending, x)
    outputs = [net.op("Identity", y)]
    if ending == "Tanh":
        outputs.append(x)
    return net.build("classifier", *outputs)


@pytest.mark.parametrize("ending", ["Softmax", "Sigmoid"])
def test_logits_are_what_a_softmax_reads(ending: str, rng: np.random.Generator) -> None:
    model = classifier(ending)
    changed = before_scores(model)
    onnx.checker.check_model(changed, full_check=True)
    feeds = {"x": rng.standard_normal((1, 4, 6, 6)).astype(np.float32)}
    (scores,) = load_onnxruntime(model)(feeds).values()
    (logits,) = load_onnxruntime(changed)(feeds).values()
    again = 1 / (1 + np.exp(-logits)) if ending == "Sigmoid" else np.exp(logits)
    np.testing.assert_allclose(again, scores, rtol=1e-4)
    assert model.graph.node[-2].op_type == ending


def test_other_outputs_are_as_they_are() -> None:
    model = classifier("Tanh")
    assert before_scores(model) is model


def test_a_softmax_that_others_read_stays() -> None:
    net = Builder()
    x = net.op("Flatten", net.op("GlobalAveragePool", net.conv(net.input("x", (1, 4, 6, 6)), 8)))
    y = net.op("Softmax", x)
    model = net.build("two readers", y, net.op("Relu", y))
    assert before_scores(model) is model
