"""Sequences of known pieces: Slice and Concat compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from artefacts.errors import ModelError
from graphs.identity import graph_hash
from graphs.view import GraphView
from quantization import prepare
from quantization.improve.improved import Improved
from quantization.improve.methods import NOTHING
from quantization.improve.walk.float_and_int8 import can_walk
from quantization.measure.execution import load_onnxruntime
from quantization.prepare.sequences import drop_sequences
from quantization.search.sensitivity import sensitivities
from tests.accuracy_models import calibrated, samples_of
from tests.networks import Builder

X = {"x": np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)}


def model_of(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], shape: tuple[int | str, ...] = (2, 5, 3)
) -> onnx.ModelProto:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        nodes,
        "sequences",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [output],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def split_of(
    index: int, *, split: Any = None, shape: tuple[int | str, ...] = (2, 5, 3), **attributes: int
) -> onnx.ModelProto:
    """One piece of a split."""
    constants = {"index": np.array(index)} | ({} if split is None else {"split": np.array(split)})
    inputs = ["x"] + (["split"] if split is not None else [])
    nodes = [
        helper.make_node("SplitToSequence", inputs, ["pieces"], **attributes),
        helper.make_node("SequenceAt", ["pieces", "index"], ["y"]),
    ]
    return model_of(nodes, constants, shape)


def same(model: onnx.ModelProto) -> set[str]:
    """Check that preparing changes no value; the operators that are left."""
    prepared = prepare(model)
    (wanted,) = load_onnxruntime(model)(X).values()
    (found,) = load_onnxruntime(prepared)(X).values()
    np.testing.assert_array_equal(found, wanted)
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    return {node.op_type for node in prepared.graph.node}


@pytest.mark.parametrize("index", [0, 1, 2, -1])
@pytest.mark.parametrize("split", [2, [1, 3, 1]])
def test_pieces_of_a_split(index: int, split: Any) -> None:
    assert same(split_of(index, split=split, axis=1)) == {"Slice"}
    assert same(split_of(index, split=split, axis=-2)) == {"Slice"}


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("index", [0, 4, -2])
def test_pieces_of_length_one(index: int, keepdims: int) -> None:
    expected = {"Slice"} if keepdims else {"Slice", "Squeeze"}
    assert same(split_of(index, axis=1, keepdims=keepdims)) == expected


def test_a_dynamic_axis_is_counted_from_the_front_only() -> None:
    shape = (2, "T", 3)
    assert same(split_of(1, split=2, axis=1, shape=shape)) == {"Slice"}
    kept = {"SplitToSequence", "SequenceAt"}
    assert same(split_of(-1, split=2, axis=1, shape=shape)) == kept


@pytest.mark.parametrize("new_axis", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_listed_tensors_are_joined(axis: int, new_axis: int) -> None:
    nodes = [
        helper.make_node("Neg", ["x"], ["z"]),
        helper.make_node("SequenceConstruct", ["x", "z", "x"], ["list"]),
        helper.make_node("ConcatFromSequence", ["list"], ["y"], axis=axis, new_axis=new_axis),
    ]
    expected = {"Neg", "Concat"} | ({"Unsqueeze"} if new_axis else set())
    assert same(model_of(nodes, {})) == expected


@pytest.mark.parametrize("index", [-4, 3, [], [0, 1]])
@pytest.mark.parametrize("maker", ["SplitToSequence", "SequenceConstruct"])
def test_what_is_no_piece_is_left_alone(maker: str, index: Any) -> None:
    inputs = ["x", "x", "x"] if maker == "SequenceConstruct" else ["x", "split"]
    nodes = [
        helper.make_node(maker, inputs, ["pieces"]),
        helper.make_node("SequenceAt", ["pieces", "index"], ["y"]),
    ]
    model = model_of(nodes, {"index": np.array(index, np.int64), "split": np.array([1, 1])})
    assert not drop_sequences(model)
    assert [node.op_type for node in model.graph.node] == [maker, "SequenceAt"]


@pytest.mark.parametrize("index", [0, 1, -1])
def test_a_listed_tensor_is_taken_back(index: int) -> None:
    nodes = [
        helper.make_node("Neg", ["x"], ["z"]),
        helper.make_node("SequenceConstruct", ["x", "z"], ["list"]),
        helper.make_node("SequenceAt", ["list", "index"], ["w"]),
        helper.make_node("Abs", ["w"], ["y"]),
    ]
    assert same(model_of(nodes, {"index": np.array(index)})) <= {"Neg", "Abs"}


def test_a_sequence_that_something_else_reads_is_kept_for_it() -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["pieces"], axis=1),
        helper.make_node("SequenceAt", ["pieces", "index"], ["w"]),
        helper.make_node("SequenceLength", ["pieces"], ["length"]),
        helper.make_node("Cast", ["length"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["w", "count"], ["y"]),
    ]
    model = model_of(nodes, {"index": np.array(1)})
    assert same(model) == {"SplitToSequence", "SequenceLength", "Cast", "Slice", "Mul"}


def test_a_sequence_is_no_output() -> None:
    model = model_of([helper.make_node("SplitToSequence", ["x"], ["y"], axis=1)], {})
    model.graph.output[0].CopyFrom(
        helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    )
    with pytest.raises(ModelError, match="output y of graph 'sequences' is a sequence of tensors"):
        prepare(model)


def test_sequences_of_unknown_pieces_are_not_walked(rng: np.random.Generator) -> None:
    """They are calibrated and built; the walk that improves and ranks needs tensors."""
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 16, 8, 8)), 16))
    size = net.op("Cast", net.op("ReduceMax", net.op("Abs", x), keepdims=0), to=TensorProto.INT64)
    size = net.op("Add", net.op("Mul", size, net.constant(np.array(0))), net.constant(np.array(4)))
    pieces = net.op("SplitToSequence", x, size, axis=2)
    model = net.build("unknown", net.op("SequenceAt", pieces, net.constant(np.array(0))))
    assert not can_walk(GraphView(model))
    placement, ranges = calibrated(model, samples_of(model, rng, 2))
    improved = Improved(model=model, ranges=ranges, weights={}, methods=NOTHING)
    with pytest.raises(ModelError, match="graph 'unknown' hands on sequences of tensors"):
        sensitivities(model, improved, placement, samples_of(model, rng, 1))
