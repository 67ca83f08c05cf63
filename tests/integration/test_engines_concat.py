"""A Concat of signed INT8 tensors before an INT8 convolution: OpenVINO got it wrong by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import engines

CHANNELS = 32


def qdq(name: str, source: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [source, "scale", "zero"], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_dq"]),
    ]


def concat_model(
    rng: np.random.Generator, *, where: str, batch: int | str, zero: np.ndarray
) -> onnx.ModelProto:
    """Two signed inputs, Q/DQ before or after their Concat, a 1x1 convolution with int8 weights."""
    # Within the bound of pairs, so that the same holds on a CPU without VNNI.
    weight = rng.integers(-64, 65, (CHANNELS, 2 * CHANNELS, 1, 1)).astype(np.int8)
    before = [*qdq("x", "x"), *qdq("y", "y")] if where == "before" else []
    joined = ["x_dq", "y_dq"] if where == "before" else ["x", "y"]
    after = qdq("cat", "cat") if where == "after" else []
    nodes = [
        *before,
        helper.make_node("Concat", joined, ["cat"], axis=1),
        *after,
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_dq"], axis=0),
        helper.make_node("Conv", ["cat_dq" if after else "cat", "w_dq"], ["out"], name="conv"),
    ]
    constants = {
        "scale": np.float32(0.02),
        "zero": zero,
        "w": weight,
        "w_scale": rng.uniform(0.0005, 0.002, CHANNELS).astype(np.float32),
        "w_zero": np.zeros(CHANNELS, np.int8),
    }
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "concat",
        [info(name, TensorProto.FLOAT, [batch, CHANNELS, 8, 8]) for name in "xy"],
        [info("out", TensorProto.FLOAT, [batch, CHANNELS, 8, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("zero", [np.int8(0), np.uint8(0), np.uint8(128)], ids=str)
def test_engine_computes_what_onnxruntime_computes(
    tmp_path: Path, rng: np.random.Generator, where: str, batch: int | str, zero: np.ndarray
) -> None:
    model = concat_model(rng, where=where, batch=batch, zero=zero)
    path = tmp_path / "concat.onnx"
    onnx.save(model, path)
    feed = {name: rng.normal(size=(2, CHANNELS, 8, 8)).astype(np.float32) for name in "xy"}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (expected,) = onnxruntime.InferenceSession(str(path), options).run(None, feed)
    options = engines.BuildOptions(target="cpu", precision="int8")
    manifest = engines.build(path, tmp_path / "concat.engine", options)
    assert manifest.coverage is not None
    assert manifest.coverage.int8_mac_share == 1.0
    with engines.load(tmp_path / "concat.engine") as engine:
        found = engine(feed)["out"]
    error = np.square(expected - found).sum() / np.square(expected).sum()
    assert error < 1e-6
