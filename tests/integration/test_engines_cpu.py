"""The cpu target end to end: OpenVINO builds, a fresh process loads, bad input is refused."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import engines
from artefacts.errors import (
    GateMissedError,
    InputError,
    ModelError,
    RequestError,
)
from engines import BuildOptions, Profile
from tests.engine_models import convnet, save
from tests.integration.cpu_engines import Built, build, images, reference

ROOT = Path(__file__).parents[2]


def test_fp32_agrees_with_onnxruntime(tmp_path: Path, rng: np.random.Generator) -> None:
    built = build(tmp_path, convnet(rng, quantized=False))
    feeds = {"input": images(rng, 3)}
    with engines.load(built.engine) as engine:
        np.testing.assert_allclose(
            engine(feeds)["output"], reference(built.model, feeds), rtol=1e-4, atol=1e-5
        )
    assert built.manifest.coverage is not None
    assert built.manifest.coverage.int8_layers == ()


def test_int8_runs_int8_and_agrees_with_onnxruntime(int8: Built, rng: np.random.Generator) -> None:
    cover = int8.manifest.coverage
    assert cover is not None
    assert cover.int8_layers == ("conv1_node", "conv2_node")
    assert cover.float_layers == ("tail_node",)
    assert cover.broken_promises == ()
    assert 0.5 < cover.int8_mac_share < 0.6
    feeds = {"input": images(rng, 4)}
    with engines.load(int8.engine) as engine:
        found, expected = engine(feeds)["output"], reference(int8.model, feeds)
    # One step of the inner quantizer is 4/127; ties may round differently before the tail.
    assert np.abs(found - expected).max() < 0.05
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


def test_a_fresh_process_gives_the_same_bits(
    int8: Built, rng: np.random.Generator, tmp_path: Path
) -> None:
    x = images(rng, 5)
    np.save(tmp_path / "x.npy", x)
    program = (
        "import sys, numpy as np, engines\n"
        "engine, x, y = sys.argv[1:]\n"
        "np.save(y, engines.load(engine)({'input': np.load(x)})['output'])\n"
    )
    files = [int8.engine, tmp_path / "x.npy", tmp_path / "y.npy"]
    subprocess.run([sys.executable, "-c", program, *files], check=True, cwd=ROOT)
    with engines.load(int8.engine) as engine:
        here = engine({"input": x})["output"]
    assert np.load(tmp_path / "y.npy").tobytes() == here.tobytes()


def test_what_an_engine_tells_of_itself(int8: Built) -> None:
    with engines.load(int8.engine) as engine:
        (spec,) = engine.inputs
        assert (spec.name, spec.dtype, spec.shape) == ("input", "float32", (None, 3, 8, 8))
        assert [s.shape for s in engine.outputs] == [(None, 16)]
        assert engine.preprocess == {"layout": "NCHW"}
        assert engine.manifest == int8.manifest
        assert engine.manifest.options["threads"] == 2
        engine.warm_up()


def test_every_batch_size_gives_the_same_rows(int8: Built, rng: np.random.Generator) -> None:
    x = images(rng, 6)
    with engines.load(int8.engine) as engine:
        whole = engine({"input": x})["output"]
        for batch in (1, 2, 3):
            parts = [engine({"input": x[i : i + batch]})["output"] for i in range(0, 6, batch)]
            np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)


def test_static_profile_makes_a_static_engine(tmp_path: Path, rng: np.random.Generator) -> None:
    shape = {"input": (2, 3, 8, 8)}
    built = build(tmp_path, convnet(rng), profiles=(Profile(min=shape, opt=shape, max=shape),))
    with engines.load(built.engine) as engine:
        assert engine.inputs[0].shape == (2, 3, 8, 8)
        assert engine({"input": images(rng, 2)})["output"].shape == (2, 16)
        with pytest.raises(RequestError, match=r"shape \(3, 3, 8, 8\), expected \(2, 3, 8, 8\)"):
            engine({"input": images(rng, 3)})


def test_batch_over_the_profile_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    low, high = {"input": (1, 3, 8, 8)}, {"input": (4, 3, 8, 8)}
    built = build(tmp_path, convnet(rng), profiles=(Profile(min=low, opt=low, max=high),))
    with engines.load(built.engine) as engine:
        with pytest.raises(RequestError) as caught:
            engine({"input": images(rng, 5)})
        assert "input (5, 3, 8, 8), expected input (1, 3, 8, 8) to (4, 3, 8, 8)" in str(
            caught.value
        )
        assert engine({"input": images(rng, 4)})["output"].shape == (4, 16)
        engine.warm_up(calls=1)


def test_fp16_says_what_really_runs(
    tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        built = build(tmp_path, convnet(rng, quantized=False), precision="fp16")
    capabilities = built.manifest.device["capabilities"]
    halves = {"FP16": "f16", "BF16": "bf16"}
    expected = next((halves[c] for c in ("FP16", "BF16") if c in capabilities), "f32")
    assert built.manifest.build["inference_precision"] == expected
    warned = "has no 16-bit floating-point arithmetic: the fp16 engine runs float32" in caplog.text
    assert warned == (expected == "f32")


# Requests


def identity(kind: int) -> onnx.ModelProto:
    """A scalar in, the same out."""
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", kind, [])],
        [helper.make_tensor_value_info("y", kind, [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"]
)
def test_scalars_of_every_dtype(tmp_path: Path, dtype: str) -> None:
    built = build(tmp_path, identity(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))
    with engines.load(built.engine) as engine:
        assert [s.dtype for s in (*engine.inputs, *engine.outputs)] == [dtype, dtype]
        found = engine({"x": np.array(1, dtype)})["y"]
        assert (found.dtype, found.shape, found) == (np.dtype(dtype), (), 1)


def test_a_type_that_numpy_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tensor 'x' has the type bf16, which numpy does not have"):
        build(tmp_path, identity(onnx.TensorProto.BFLOAT16))


# Builds


def test_the_gate_holds_and_leaves_nothing(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(GateMissedError) as caught:
        build(tmp_path, convnet(rng), precision="int8", require_int8=0.95)
    assert "54.3% of the multiply-accumulates run INT8, expected at least 95.0%" in str(
        caught.value
    )
    assert "tail_node" in str(caught.value)
    assert caught.value.exit_code == 1
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    build(tmp_path, convnet(rng, float_tail=False), precision="int8", require_int8=0.95)


def test_int8_of_a_float_model_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(ModelError, match="no QuantizeLinear or DequantizeLinear nodes"):
        build(tmp_path, convnet(rng, quantized=False), precision="int8")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_an_operator_that_openvino_lacks_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    model = convnet(rng, quantized=False)
    model.graph.node[-1].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    with pytest.raises(ModelError, match=r"refused by OpenVINO .*com\.example"):
        build(tmp_path, model)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("size", [0, 10, 500, -10])
def test_truncated_models_are_refused(tmp_path: Path, rng: np.random.Generator, size: int) -> None:
    path = save(convnet(rng), tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelError, match="cannot be read"):
        engines.build(path, tmp_path / "m.engine", BuildOptions(target="cpu"))
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_external_data_stays_in_its_folder(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "m.onnx"
    model = convnet(rng, quantized=False)
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    manifest = engines.build(path, tmp_path / "m.engine", BuildOptions(target="cpu"))
    assert list(manifest.onnx["external"]) == ["w.bin"]
    stolen = onnx.load(path, load_external_data=False)
    for tensor in stolen.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret.bin"
    (path.parent / "w.bin").rename(tmp_path / "secret.bin")
    path.write_bytes(stolen.SerializeToString())
    with pytest.raises(ModelError, match="cannot be read"):
        engines.build(path, tmp_path / "m2.engine", BuildOptions(target="cpu"))


def test_an_output_folder_that_is_a_file(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="is not writable"):
        engines.build(save(convnet(rng), tmp_path), tmp_path / "taken" / "m.engine", BuildOptions())


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model .*none\.onnx does not exist"):
        engines.build(tmp_path / "none.onnx", tmp_path / "m.engine", BuildOptions())


def test_importing_openvino_reports_nothing_to_anyone(int8: Built, tmp_path: Path) -> None:
    program = "import sys, engines; engines.load(sys.argv[1])"
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("CI", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, int8.engine],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert list(tmp_path.iterdir()) == []  # its telemetry would keep a client id here
    assert done.stdout + done.stderr == ""
