"""Models whose weights alone are codes: calibrated as float models, where there is data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import engines
from build_engine import build
from quantization import from_dynamic, has_coded_weights_only, import_quantized, prepare
from quantization.measure.execution import load_onnxruntime
from tests.networks.running import run, sqnr_db

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

INPUTS, OUTPUTS, WORDS = 32, 48, 50


def coded(kind: str, rng: np.random.Generator) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Words or numbers, two dense layers, the first of codes; and the same of numbers."""
    weight = rng.normal(size=(INPUTS, OUTPUTS)).astype(np.float32) / np.float32(INPUTS**0.5)
    codes, arguments, constants = _coded(kind, weight)
    table = rng.integers(0, 256, (WORDS, INPUTS)).astype(np.uint8)
    looked_up = kind == "table"
    kept = [numpy_helper.from_array(rng.normal(size=(OUTPUTS, 16)).astype(np.float32), "v")]
    names = ["s", *(["z"] if len(constants) > 1 else [])]
    if looked_up:
        x = helper.make_tensor_value_info("x", TensorProto.INT64, ["N"])
        first = [
            helper.make_node("Gather", ["t", "x"], ["g"], name="words"),
            helper.make_node("DequantizeLinear", ["g", "ts", "tz"], ["e"], name="numbers"),
        ]
        kept += [numpy_helper.from_array(table, "t")]
        kept += [numpy_helper.from_array(np.float32(0.02), "ts")]
        kept += [numpy_helper.from_array(np.uint8(131), "tz")]
        numbers = ((table.astype(np.float32) - 131) * np.float32(0.02)).astype(np.float32)
    else:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", INPUTS])
        first, numbers = [], np.zeros((1, 1), np.float32)
    read = "e" if looked_up else "x"
    layers = [
        helper.make_node("MatMul", [read, "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "v"], ["y"], name="second"),
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])
    given = [*zip(names, constants, strict=True)]
    stored = [codes, *kept, *(numpy_helper.from_array(value, name) for name, value in given)]
    number = helper.make_node("DequantizeLinear", ["q", *names], ["w"], name="w", **arguments)
    plain = _of_numbers(codes, dict(given), arguments)
    words = [helper.make_node("Gather", ["t", "x"], ["e"], name="words")] if looked_up else []
    floats = [kept[0], numpy_helper.from_array(plain, "w"), numpy_helper.from_array(numbers, "t")]
    return (
        _model([*first, number, *layers], x, y, stored),
        _model([*words, *layers], x, y, floats),
    )


def _model(nodes: list, x: object, y: object, constants: list) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "coded", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _coded(
    kind: str, weight: np.ndarray
) -> tuple[onnx.TensorProto, dict[str, int], list[np.ndarray]]:
    """Codes, attributes, scales and zero points."""
    if kind == "int4, blocks":
        blocks = np.abs(weight).reshape(2, INPUTS // 2, OUTPUTS).max(1) / 7
        spread = np.repeat(blocks, INPUTS // 2, axis=0)
        codes = np.clip(np.rint(weight / spread), -8, 7).astype(np.int8)
        tensor = helper.make_tensor("q", TensorProto.INT4, codes.shape, codes.ravel().tolist())
        return tensor, {"axis": 0, "block_size": INPUTS // 2}, [blocks.astype(np.float32)]
    scales = (np.abs(weight).max(0) / 127).astype(np.float32)
    shift, kind_of = (128, np.uint8) if kind == "uint8" else (0, np.int8)
    codes = (np.rint(weight / scales) + shift).astype(kind_of)
    return (
        numpy_helper.from_array(codes, "q"),
        {"axis": 1},
        [scales, np.full(OUTPUTS, shift, kind_of)],
    )


def _of_numbers(
    codes: onnx.TensorProto, given: dict[str, np.ndarray], arguments: dict[str, int]
) -> np.ndarray:
    values = numpy_helper.to_array(codes).astype(np.float32)
    scales = given["s"]
    if "block_size" in arguments:
        scales = np.repeat(scales, arguments["block_size"], axis=0)
    shift = given["z"].astype(np.float32) if "z" in given else np.float32(0)
    return ((values - shift) * scales).astype(np.float32)


def samples_of(model: onnx.ModelProto, count: int, rng: np.random.Generator) -> np.ndarray:
    if model.graph.input[0].type.tensor_type.elem_type == TensorProto.INT64:
        return rng.integers(0, WORDS, count)
    return rng.normal(size=(count, INPUTS)).astype(np.float32)


KINDS = ("int8", "uint8", "int4, blocks", "table")


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_the_numbers_that_they_stand_for(kind: str, rng: np.random.Generator) -> None:
    model, plain = coded(kind, rng)
    assert has_coded_weights_only(model)
    assert not has_coded_weights_only(plain)
    ours, count = from_dynamic(model)
    assert count == (2 if kind == "table" else 1)
    assert "DequantizeLinear" not in {node.op_type for node in ours.graph.node}
    feeds = {"x": samples_of(model, 9, rng)}
    (wanted,), (found,) = (
        load_onnxruntime(prepare(each))(feeds).values() for each in (plain, ours)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_with_data_it_is_calibrated(
    kind: str, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    model, plain = coded(kind, rng)
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=samples_of(model, 64, rng))
    build(
        tmp_path / "m.onnx",
        tmp_path / "m.engine",
        target="cpu",
        calib_data=tmp_path / "x.npz",
        show=True,
    )
    said = capsys.readouterr().out
    count = "2 constants" if kind == "table" else "1 constant"
    assert f"weights alone are quantized: those of {count} are taken as the numbers" in said
    assert "2 of 2 layers run INT8" in said
    feeds = {"x": samples_of(model, 64, rng)}
    with engines.load(tmp_path / "m.engine") as engine:
        found = engine(feeds)
    assert sqnr_db(run(plain, feeds)["y"], found["y"]) > 25


def test_without_data_it_is_taken_as_it_is_and_said(rng: np.random.Generator) -> None:
    (note,) = import_quantized(coded("int8", rng)[0]).notes
    assert note.startswith("weights alone are quantized, so that no layer runs INT8: build with")
