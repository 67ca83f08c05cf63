"""Input specs, batches, random samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from artefacts.errors import DataError, ModelError
from calibrators.samples.data import (
    Batch,
    InputSpec,
    Sample,
    batches,
    input_specs,
    random_samples,
    require_labels,
)
from calibrators.samples.samples import declared_specs

F32 = np.dtype(np.float32)


def spec(*shape: int | str | None, name: str = "x", dtype: Any = np.float32) -> InputSpec:
    return InputSpec(name=name, dtype=np.dtype(dtype), shape=shape)


def samples(*shapes: tuple[int, ...], name: str = "x") -> list[Sample]:
    return [
        Sample(inputs={name: np.full(shape, index, np.float32)}, name=str(index))
        for index, shape in enumerate(shapes)
    ]


def model(*inputs: onnx.ValueInfoProto, **graph: Any) -> onnx.ModelProto:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph([], "g", list(inputs), [output], **graph))


def test_input_specs() -> None:
    value = helper.make_tensor_value_info
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    found = input_specs(
        model(
            value("x", TensorProto.FLOAT, ["N", 3, 224, 224]),
            value("w", TensorProto.FLOAT, [2]),
            value("ids", TensorProto.INT64, ["unk__7", None]),
            value("t", TensorProto.FLOAT16, []),
            value("b", TensorProto.UINT8, [0, -1]),
            initializer=[weight],
        )
    )
    assert [entry.name for entry in found] == ["x", "ids", "t", "b"]
    assert [entry.shape for entry in found] == [("N", 3, 224, 224), (None, None), (), (None, None)]
    assert [str(entry.dtype) for entry in found] == ["float32", "int64", "float16", "uint8"]
    assert str(found[1]) == "ids int64 [?, ?]"


def test_inputs_that_cannot_be_fed() -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [1])
    with pytest.raises(ModelError, match="input s of the model is not a tensor"):
        input_specs(model(sequence))
    with pytest.raises(ModelError, match="known rank"):
        input_specs(model(helper.make_tensor_value_info("x", TensorProto.FLOAT, None)))
    odd = helper.make_tensor_value_info("x", 99, [1])
    with pytest.raises(ModelError, match="element type 99"):
        input_specs(model(odd))


def laid_out(found: list[Batch]) -> list[tuple[int, ...]]:
    """The values of the first column of each batch: samples carry their index."""
    return [tuple(batch.inputs["x"].reshape(len(batch.inputs["x"]), -1)[:, 0]) for batch in found]


def test_ragged_last_batch_of_a_dynamic_model() -> None:
    found = list(batches(samples(*[(1, 2)] * 5), 2, inputs=[spec("N", 2)]))
    assert laid_out(found) == [(0, 1), (2, 3), (4,)]
    assert [(batch.count, batch.padding) for batch in found] == [(2, 0), (2, 0), (1, 0)]
    assert [[s.name for s in batch.samples] for batch in found] == [["0", "1"], ["2", "3"], ["4"]]


@pytest.mark.parametrize("asked", [1, 2, 8])
def test_static_batch_wins_and_the_last_one_is_padded(asked: int) -> None:
    found = list(batches(samples(*[(1, 2)] * 5), asked, inputs=[spec(3, 2)]))
    assert laid_out(found) == [(0, 1, 2), (3, 4, 4)]
    assert [(batch.count, batch.padding) for batch in found] == [(3, 0), (2, 1)]
    assert len(found[1].samples) == 2


def test_change_of_shape_starts_a_new_batch() -> None:
    shapes = [(1, 4), (1, 4), (1, 6), (1, 6), (1, 6), (1, 4)]
    found = list(batches(samples(*shapes), 2, inputs=[spec("N", "T")]))
    assert laid_out(found) == [(0, 1), (2, 3), (4,), (5,)]
    assert [batch.inputs["x"].shape for batch in found] == [(2, 4), (2, 6), (1, 6), (1, 4)]


def test_models_without_batch_axis() -> None:
    found = list(batches(samples((3, 4), (3, 4)), 8, inputs=[spec(3, 4)]))
    assert [batch.inputs["x"].shape for batch in found] == [(3, 4), (3, 4)]
    assert [(batch.count, batch.padding, len(batch.samples)) for batch in found] == [(3, 0, 1)] * 2
    found = list(batches(samples((), ()), 8, inputs=[spec()]))
    assert [batch.inputs["x"].shape for batch in found] == [(), ()]
    assert [(batch.count, batch.padding) for batch in found] == [(1, 0)] * 2


def test_whole_feeds_among_single_samples() -> None:
    found = list(batches(samples((1, 2), (5, 2), (1, 2)), 4, inputs=[spec("N", 2)]))
    assert laid_out(found) == [(0,), (1,) * 5, (2,)]
    assert [batch.count for batch in found] == [1, 5, 1]


@pytest.mark.parametrize(
    ("inputs", "together"),
    [
        ([spec("N", 2), spec("N", 3, name="y")], True),
        ([spec(None, 2), spec(None, 3, name="y")], True),
        ([spec("N", 2), spec(None, 3, name="y")], True),
        ([spec(4, 2), spec(4, 3, name="y")], True),
        ([spec("points", 2), spec("boxes", 3, name="y")], False),
        ([spec("N", 2), spec(1, 3, name="y")], False),
        ([spec(1, 2), spec(4, 3, name="y")], False),
        ([spec(None, 2), spec(4, 3, name="y")], False),
        ([spec("N", 2), spec(name="y")], False),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_which_inputs_share_a_batch_axis(inputs: list[InputSpec], together: bool) -> None:
    feed = [
        Sample(inputs={"x": np.zeros((1, 2)), "y": np.zeros((1, 3))}, name=str(index))
        for index in range(4)
    ]
    assert len(list(batches(feed, 4, inputs=inputs))) == (1 if together else 4)


@given(
    st.lists(st.sampled_from([2, 3]), max_size=30),
    st.integers(1, 7),
    st.sampled_from(["N", None, 1, 3]),
)
def test_no_sample_is_lost_or_moved(lengths: list[int], size: int, axis: int | str | None) -> None:
    given_ = samples(*[(1, length) for length in lengths])
    found = list(batches(given_, size, inputs=[spec(axis, "T")]))
    kept = [row for batch in found for row in batch.inputs["x"][: batch.count]]
    assert [int(row[0]) for row in kept] == list(range(len(lengths)))
    assert [len(row) for row in kept] == lengths
    assert [s for batch in found for s in batch.samples] == given_
    expected = axis if isinstance(axis, int) else size
    assert all(batch.count <= expected for batch in found)
    if isinstance(axis, int):
        assert all(len(batch.inputs["x"]) == axis for batch in found)


def test_batch_size_is_checked() -> None:
    with pytest.raises(DataError, match="batch size is 0, expected at least 1"):
        list(batches([], 0, inputs=[spec("N", 2)]))


def test_random_samples() -> None:
    inputs = (spec("N", 3, 8, 8), spec("N", 16, name="ids", dtype=np.int64))
    first = list(random_samples(inputs, count=5, seed=1))
    assert [sample.name for sample in first] == [f"random#{index}" for index in range(5)]
    assert first[0].inputs["x"].shape == (1, 3, 8, 8)
    assert first[0].inputs["x"].dtype == np.float32
    assert first[0].inputs["ids"].dtype == np.int64
    assert set(np.unique(first[0].inputs["ids"])) <= {0, 1}
    assert len({sample.digest for sample in first}) == 5
    again = random_samples(inputs, count=5, seed=1)
    assert [sample.digest for sample in again] == [sample.digest for sample in first]
    assert [sample.digest for sample in again[3:]] == [sample.digest for sample in first[3:]]
    assert next(iter(random_samples(inputs, count=1, seed=2))).digest != first[0].digest
    assert "seed 1" in again.path
    with pytest.raises(DataError, match="random samples have no labels"):
        require_labels(again)


def test_random_samples_need_a_shape() -> None:
    with pytest.raises(DataError, match=r"input x float32 \[N, T\] needs a fixed shape"):
        random_samples([spec("N", "T")], count=1, seed=0)
    assert next(iter(random_samples([spec(3, 4)], count=1, seed=0))).inputs["x"].shape[1:] == (4,)


def test_digests_tell_names_dtypes_shapes_and_bytes_apart() -> None:
    base = np.arange(6, dtype=np.float32)
    variants = [
        {"x": base},
        {"y": base},
        {"x": base.astype(np.float64)},
        {"x": base.reshape(2, 3)},
        {"x": base.view(np.int32)},
        {"x": base[::-1]},
        {"x": base, "y": base},
        {"x": base[:0]},
    ]
    digests = [Sample(inputs=inputs, name="a").digest for inputs in variants]
    assert len(set(digests)) == len(variants)
    strided = np.repeat(base, 2)[::2]
    assert Sample(inputs={"x": strided}, name="b").digest == digests[0]


@pytest.mark.parametrize(
    ("kind", "holds"), [(TensorProto.STRING, "strings"), (TensorProto.COMPLEX64, "complex numbers")]
)
def test_inputs_that_are_no_numbers_are_refused_by_what_they_hold(kind: int, holds: str) -> None:
    value = helper.make_tensor_value_info("s", kind, ["N"])
    made = helper.make_tensor_value_info("t", kind, ["N"])
    node = helper.make_node("Identity", ["s"], ["t"])
    model = helper.make_model(helper.make_graph([node], "g", [value], [made]))
    with pytest.raises(ModelError, match=rf"input s of the model holds {holds}, expected numbers"):
        declared_specs(model)
