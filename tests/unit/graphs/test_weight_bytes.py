"""The size of a model's tensors, which protobuf cannot say of more than 2 GB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from engines.onnx_layers import is_tried, small_enough
from graphs.external_data import save_external, stored_bytes
from graphs.files import save_model
from graphs.tensor_data import weight_bytes


def holding(*tensors: TensorProto) -> ModelProto:
    node = helper.make_node("Identity", ["x"], ["y"])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    return helper.make_model(helper.make_graph([node], "g", value[:1], value[1:], list(tensors)))


def test_tensors_are_counted_one_by_one() -> None:
    small = holding(numpy_helper.from_array(np.zeros((3, 5), np.float32), "w"))
    assert weight_bytes(small) == 60
    assert is_tried(small)
    assert small_enough(small) == small.SerializeToString()
    # By their shapes: the data need not be here.
    parts = [TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[2**28]) for i in range(4)]
    assert weight_bytes(holding(*parts)) == 2**32
    assert not is_tried(holding(*parts))
    assert small_enough(holding(*parts)) is None


def test_what_lies_beside_a_model_is_its_own(tmp_path: Path) -> None:
    model = holding(numpy_helper.from_array(np.ones((64, 32), np.float32), "w"))
    inside, outside = tmp_path / "inside.onnx", tmp_path / "outside.onnx"
    save_model(model, inside)
    assert stored_bytes(inside) == inside.stat().st_size
    save_external(model, outside)
    (data,) = tmp_path.glob("outside.*.data")
    assert stored_bytes(outside) == outside.stat().st_size + data.stat().st_size
    assert data.stat().st_size == 64 * 32 * 4
