"""The command's last step: engine against graph, and what cannot be measured fails no build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import engines
from build_engine import main
from pipeline import building, steps

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

Arrays = dict[str, np.ndarray]


def save(folder: Path, nodes: list[Any], constants: dict[str, Any], **shapes: Any) -> Path:
    """A model of opset 17 with input x and output y."""
    opset = shapes.pop("opset", 17)
    stored = [
        value
        if isinstance(value, onnx.TensorProto)
        else numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, i, o, name=f"n{k}", **a) for k, (op, i, o, a) in enumerate(nodes)],
        "net",
        [value("x", TensorProto.FLOAT, shapes["x"])],
        [value("y", TensorProto.FLOAT, shapes["y"])],
        stored,
    )
    ir = 11 if opset > 23 else 8
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def weight(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def perceptron(folder: Path, rng: np.random.Generator) -> Path:
    nodes = [("MatMul", ["x", "a"], ["h"], {}), ("Relu", ["h"], ["r"], {})]
    nodes += [("MatMul", ["r", "b"], ["y"], {})]
    constants = {"a": weight(rng, 16, 32), "b": weight(rng, 32, 8)}
    return save(folder, nodes, constants, x=["N", 16], y=["N", 8])


def build(model: Path, x: np.ndarray, *flags: str) -> int:
    folder = model.parent
    np.savez(folder / "calib.npz", x=x)
    given = ["--onnx", model, "--engine", folder / "out/m.int8.engine", "--target", "cpu"]
    return main([*map(str, given), "--calib-data", str(folder / "calib.npz"), *flags])


def runtime(model: Path) -> dict[str, Any]:
    manifest = engines.read_manifest(model.parent / "out/m.int8.engine")
    return dict(manifest.measured["runtime"])


def test_what_was_found_is_said_and_kept(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    model = perceptron(tmp_path, rng)
    assert build(model, rng.normal(size=(16, 16)).astype(np.float32)) == 0
    assert "engine against its graph: SQNR of the engine" in capsys.readouterr().out
    found = runtime(model)
    assert found["explained_by_rounding"] is True
    assert [gap["batch"] for gap in found["outputs"]] in ([1, 8], [8, 1])
    assert all(gap["sqnr_db"] >= gap["limit_db"] for gap in found["outputs"])


def test_an_engine_of_another_graph_is_a_failure_with_its_layer(
    tmp_path: Path,
    rng: np.random.Generator,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fault put into the build: the runtime gets other weights in the last layer."""
    model = perceptron(tmp_path, rng)
    x = rng.normal(size=(16, 16)).astype(np.float32)
    right = building.build_file

    def wrong(source: Path, *rest: Any) -> Any:
        graph = onnx.load(source)
        for tensor in graph.graph.initializer:
            codes = numpy_helper.to_array(tensor)
            if codes.dtype == np.int8 and codes.shape == (32, 8):
                tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(-codes), tensor.name))
        other = source.with_name("other.onnx")
        onnx.save(graph, other)
        return right(other, *rest)

    monkeypatch.setattr(steps, "build_file", wrong)
    assert build(model, x) == 1
    error = capsys.readouterr().err
    assert "output y of the engine is -6.0 dB from its own graph at batch" in error
    assert "--allow-runtime-gap" in error
    assert runtime(model)["explained_by_rounding"] is False
    assert build(model, x, "--allow-runtime-gap") == 0
    assert "warning: output y of the engine is -6.0 dB" in capsys.readouterr().err


def test_a_model_in_bfloat16_is_measured_by_what_was_prepared(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    values = weight(rng, 16, 8)
    narrow = helper.make_tensor("w", TensorProto.BFLOAT16, values.shape, values.ravel())
    nodes = [
        ("Cast", ["x"], ["b"], {"to": TensorProto.BFLOAT16}),
        ("MatMul", ["b", "w"], ["h"], {}),
    ]
    nodes += [("Cast", ["h"], ["y"], {"to": TensorProto.FLOAT})]
    model = save(tmp_path, nodes, {"w": narrow}, x=["N", 16], y=["N", 8])
    assert build(model, rng.normal(size=(16, 16)).astype(np.float32)) == 0
    assert "INT8 engine: SQNR" in capsys.readouterr().out


def test_a_model_that_takes_one_sample_is_measured_sample_by_sample(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [("Conv", ["x", "w"], ["c"], {}), ("Relu", ["c"], ["r"], {})]
    nodes += [("Reshape", ["r", "one"], ["f"], {}), ("Gemm", ["f", "g"], ["y"], {})]
    constants = {"w": weight(rng, 8, 4, 3, 3), "one": np.array([1, 128]), "g": weight(rng, 128, 8)}
    model = save(tmp_path, nodes, constants, x=["N", 4, 6, 6], y=[1, 8])
    assert build(model, rng.normal(size=(12, 4, 6, 6)).astype(np.float32)) == 0
    out = capsys.readouterr().out
    assert "INT8 engine: SQNR" in out
    assert [gap["batch"] for gap in runtime(model)["outputs"]] == [1]


def test_a_quantized_model_is_compared_with_itself(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = rng.integers(-60, 61, (16, 8)).astype(np.int8)  # within the bound of pairs
    nodes = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"], {}),
        ("DequantizeLinear", ["q", "s", "z"], ["d"], {}),
        ("DequantizeLinear", ["w", "s", "z"], ["v"], {}),
        ("MatMul", ["d", "v"], ["y"], {}),
    ]
    constants = {"s": np.float32(0.02), "z": np.int8(0), "w": codes}
    model = save(tmp_path, nodes, constants, x=["N", 16], y=["N", 8])
    assert build(model, rng.normal(size=(16, 16)).astype(np.float32)) == 0
    out = capsys.readouterr().out
    assert "FP32" not in out
    assert "INT8 engine: SQNR" in out or "INT8 engine: exact: equal to its ONNX" in out
    assert "dB against its ONNX" in out or "exact" in out
    measured = engines.read_manifest(tmp_path / "out/m.int8.engine").measured
    assert json.dumps(measured["accuracy"]["its ONNX"])


@pytest.mark.parametrize("isa", ["vnni", "portable"])
def test_the_isa_is_for_the_cpu_target(
    isa: str, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    model = perceptron(tmp_path, rng)
    x = rng.normal(size=(16, 16)).astype(np.float32)
    assert build(model, x, "--cpu-isa", isa, "--stop-after", "onnx") == 0
    int8 = onnx.load(tmp_path / "out/m.int8.onnx")
    if isa == "portable":
        assert engines.needed_cpu_isa(int8) == "portable"
    capsys.readouterr()
    assert build(model, x, "--cpu-isa", isa, "--target", "tensorrt-rtx") == 2
    assert f"--cpu-isa {isa} with --target tensorrt-rtx" in capsys.readouterr().err
    if isa == "vnni" and engines.cpu_isa() == "portable":
        assert build(model, x, "--cpu-isa", isa) == 2
        assert "--cpu-isa vnni on a CPU without VNNI" in capsys.readouterr().err
