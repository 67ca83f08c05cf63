"""What the last step would refuse, the first says: before anything is calibrated or written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

import engines
from artefacts.errors import ModelError, UnsupportedError
from build_engine import build
from engines.environment import has_gpu

# Name → nodes behind an INT8 layer, and what is said of them by target.
BODIES = {
    "a kernel that the builder lacks": (
        "to = Constant <value_ints=[-1,4,4]> () b = Reshape (a, to) middle = Constant "
        "<value_ints=[1]> () m = ReduceMax <axes=[2], keepdims=0> (b) t = Unsqueeze (m, middle) "
        "most = Constant <value_ints=[3]> () n = NonMaxSuppression (b, t, most) "
        "y = Cast <to=1> (n)",
        {"tensorrt-rtx": r"NonMaxSuppression.* cannot be built for tensorrt-rtx: .*no kernel"},
    ),
    "branches of unequal rank": (
        "m = ReduceMax <keepdims=0> (a) half = Constant <value_float=0.5> () "
        "more = Greater (m, half) i = If (more) "
        "<then_branch = t () => (float[N,16] t1) { t1 = Relu (a) }, "
        "else_branch = e () => (float[N] e1) { e1 = ReduceMax <axes=[1], keepdims=0> (a) }> "
        "y = Relu (i)",
        {
            "tensorrt-rtx": r"node If:i \(If of branches with 2 and 1 axes\).* cannot be built",
            "cpu": r"node If:i \(If\) of graph 'g' has another number of axes for other inputs",
        },
    ),
    "a squeeze of what is free": (
        "y = Squeeze (a)",
        {
            "tensorrt-rtx": r"node Squeeze:y \(Squeeze without axes of shape \[\?, 16\]\)",
            "cpu": r"\(Squeeze\) of graph 'g' has another number of axes for other inputs",
        },
    ),
    "an importer that does not name its node": (
        "zero = Constant <value_ints=[0]> () one = Constant <value_ints=[1,1]> () "
        "at = Expand (zero, one) u = Constant <value_floats=[1.0]> () u1 = Reshape (u, one) "
        'y = ScatterElements <reduction="add"> (a, at, u1)',
        {"tensorrt-rtx": r"node ScatterElements:y \[ScatterElements\]: Unsupported reduction"},
    ),
    "an operator that nobody converts": (
        "to = Constant <value_ints=[-1,4,4]> () b = Reshape (a, to) y = Det (b)",
        {"tensorrt-rtx": "refused by the parser of TensorRT-RTX", "cpu": "refused by OpenVINO"},
    ),
}
LAYERS = {
    "float": "a = MatMul (x, w)",
    "quantized": "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) "
    "v = DequantizeLinear (k, s, z) a = MatMul (d, v)",
}
CASES = [(name, target) for name, (_, said) in BODIES.items() for target in said]


@pytest.mark.parametrize("came", LAYERS)
@pytest.mark.parametrize(("name", "target"), CASES)
def test_the_first_step_refuses(
    name: str, target: str, came: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    pytest.importorskip("openvino" if target == "cpu" else "tensorrt_rtx")
    body, said = BODIES[name]
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,16] x) => (float y) '
        f"{{ {LAYERS[came]} {body} }}"
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    constants = {
        "w": rng.normal(size=(16, 16)).astype(np.float32),
        "k": rng.integers(-127, 128, (16, 16), np.int8),
        "s": np.float32(0.03),
        "z": np.int8(0),
    }
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    onnx.save(model, tmp_path / "m.onnx")
    rows = rng.normal(size=(8, 16)).astype(np.float32)
    with pytest.raises(ModelError, match=said[target]):
        build(tmp_path / "m.onnx", tmp_path / "o/m.engine", calib_data=rows, target=target)
    assert not (tmp_path / "o").exists()


def test_a_model_that_is_built_elsewhere_is_warned_of(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """No library of this machine is asked; what the linter knows is said."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,16] x) => (float[N] y) '
        "{ a = MatMul (x, w) to = Constant <value_ints=[-1,4,4]> () b = Reshape (a, to) "
        "y = Det (b) }"
    )
    weight = rng.normal(size=(16, 16)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "m.onnx")
    rows = rng.normal(size=(8, 16)).astype(np.float32)
    build(
        tmp_path / "m.onnx",
        tmp_path / "o/m.engine",
        calib_data=rows,
        target="tensorrt-rtx",
        stop_after="onnx",
        show=True,
    )
    assert "warning: TensorRT will refuse node 'Det:y'" in capsys.readouterr().out
    assert (tmp_path / "o/m.int8.onnx").exists()


def test_float64_at_the_edge_is_refused_for_openvino_in_the_first_step(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    pytest.importorskip("openvino")
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (double[N,16] x) => (double[N,16] y) '
        "{ y = MatMul (x, w) }"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=(16, 16)), "w"))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="x of graph 'g' is float64, which OpenVINO's CPU plugin"):
        build(tmp_path / "m.onnx", tmp_path / "m.engine", target="cpu", random_calibration=8)
    assert not list(tmp_path.glob("m.p*"))


def test_an_input_that_is_an_output_is_refused_for_tensorrt(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Its parser calls the input ``__x``; the cpu target hands it on."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,16] x) => '
        "(float[N,16] y, float[N,16] x) { y = MatMul (x, w) }"
    )
    weight = rng.normal(size=(16, 16)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "m.onnx")
    rows = rng.normal(size=(8, 16)).astype(np.float32)
    path, engine = tmp_path / "m.onnx", tmp_path / "o/m.engine"
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(ModelError, match="tensor 'x' is an input and an output of the model"):
        build(path, engine, calib_data=rows, target="tensorrt-rtx")
    assert not (tmp_path / "o").exists()
    pytest.importorskip("openvino")
    build(path, engine, calib_data=rows, target="cpu")
    with engines.load(engine) as loaded:
        np.testing.assert_array_equal(loaded({"x": rows})["x"], rows)


@pytest.mark.skipif(has_gpu(), reason="the plugin starts on a GPU")
def test_a_plugin_that_needs_a_gpu_is_said_to(tmp_path: Path, rng: np.random.Generator) -> None:
    """TensorRT-RTX builds without a GPU, but its RoiAlign asks for one when it is parsed."""
    pytest.importorskip("tensorrt_rtx")
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1,16,8,8] x) => (float y) '
        "{ a = Conv (x, w) y = RoiAlign <output_height=2, output_width=2> (a, boxes, batch) }"
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    constants = {
        "w": rng.normal(size=(16, 16, 3, 3)).astype(np.float32),
        "boxes": np.array([[0, 0, 4, 4]], np.float32),
        "batch": np.array([0]),
    }
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    onnx.save(model, tmp_path / "m.onnx")
    rows = rng.normal(size=(4, 1, 16, 8, 8)).astype(np.float32)
    with pytest.raises(UnsupportedError, match=r"RoiAlign:y.*expected a GPU with its driver"):
        build(tmp_path / "m.onnx", tmp_path / "m.engine", calib_data=rows, target="tensorrt-rtx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
