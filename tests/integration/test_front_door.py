"""``build`` for Python: the script of docs/python.md, what samples may be, mistakes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import calibrators
import engines
import quantization
from artefacts.errors import EngineError, GateMissedError, InputError
from artefacts.files import sha256_file
from build_engine import build, main
from calibrators import Preprocess

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "01_digits"


def test_the_script_of_the_page_makes_what_the_command_makes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    script = script.replace("out/python", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['digits.prepared.onnx', 'digits.stats.npz'")
    command = ["--onnx", DIGITS / "digits.onnx", "--engine", tmp_path / "c/digits.int8.engine"]
    command += ["--target", "cpu", "--calib-data", DIGITS / "calib"]
    command += ["--preprocess", DIGITS / "preprocess.yaml", "--eval-data", DIGITS / "test.npz"]
    assert main([str(word) for word in command]) == 0
    for name in ("prepared.onnx", "ranges.json", "improved.onnx", "int8.onnx"):
        ours, theirs = tmp_path / f"digits.{name}", tmp_path / f"c/digits.{name}"
        assert sha256_file(ours) == sha256_file(theirs), name


@pytest.fixture
def model(tmp_path: Path, rng: np.random.Generator) -> Path:
    value = helper.make_tensor_value_info
    weights = {"a": (16, 32), "b": (32, 8)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"], name="first"),
            helper.make_node("Relu", ["h"], ["r"], name="relu"),
            helper.make_node("MatMul", ["r", "b"], ["y"], name="second"),
        ],
        "perceptron",
        [value("x", TensorProto.FLOAT, ["N", 16])],
        [value("y", TensorProto.FLOAT, ["N", 8])],
        [
            numpy_helper.from_array(rng.normal(size=shape).astype(np.float32) / 4, name)
            for name, shape in weights.items()
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def sources(x: np.ndarray) -> dict[str, Any]:
    """The same samples, as a person would have them."""

    def feeds() -> Iterator[dict[str, np.ndarray]]:
        return ({"x": row[None]} for row in x)

    return {
        "array": x,
        "dict": {"x": x},
        "list": list(feeds()),
        "generator": feeds(),
        "function": feeds,
    }


@pytest.mark.parametrize("kind", ["array", "dict", "list", "generator", "function"])
def test_samples_as_a_person_has_them(
    kind: str, model: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    x = rng.normal(size=(12, 16)).astype(np.float32)
    result = build(
        model, model.parent / kind / "m.int8.engine", calib_data=sources(x)[kind], target="cpu"
    )
    assert capsys.readouterr().out == ""
    assert result.manifest is not None
    assert result.manifest.passport.samples == 12
    assert result.placement["int8_mac_share"] == 1.0
    assert result.accuracy["INT8 engine"]["sqnr_db"] > 20
    assert result.runtime["explained_by_rounding"] is True
    assert result.promise is None
    with result.load(threads=1) as engine:
        assert engine({"x": x})["y"].shape == (12, 8)


def test_what_it_prints_and_where_it_ends(
    model: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    x = rng.normal(size=(12, 16)).astype(np.float32)
    spec = Preprocess(scale=0.5)
    result = build(
        model,
        model.parent / "out/m.engine",
        calib_data={"x": x},
        preprocess=spec,
        target="cpu",
        stop_after="onnx",
        exclude="second",
        show=True,
    )
    assert "[3/5] quantize" in capsys.readouterr().out
    assert result.engine is None
    assert [path.name for path in result.files][-1] == "m.int8.onnx"
    with pytest.raises(EngineError, match="no engine was built"):
        result.load()


def test_the_stages_by_hand(
    model: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    """Each takes what the one before gives; the engine says INT8 though nobody told it so."""
    np.save(model.parent / "x.npy", rng.normal(size=(12, 16)).astype(np.float32))
    prepared = quantization.prepare(quantization.load_model(model))
    placement = quantization.place(prepared, profile="cpu", portable=True)
    samples = calibrators.open_samples(
        model.parent / "x.npy", inputs=calibrators.input_specs(prepared)
    )
    statistics = calibrators.observe(prepared, placement.tensors, samples)
    ranges = calibrators.compute_ranges(statistics, method="mse")
    best, trials = quantization.improve(prepared, placement, ranges, samples)
    feeds = (dict(sample.inputs) for sample in samples)
    seen: list[tuple[int, int]] = []
    again, _ = quantization.improve(
        prepared, placement, ranges, feeds, progress=lambda *state: seen.append(state)
    )
    # Two walks through three layers; the first report is of none, before anything is computed.
    assert seen == [(done, 6) for done in range(7)]
    assert len(trials) == 3
    assert trials[0].methods.names == ()
    int8, engine = model.parent / "hand.int8.onnx", model.parent / "hand.engine"
    assert best.quantized(placement) == again.quantized(placement)
    quantization.save_model(best.quantized(placement), int8)
    assert engines.build(int8, engine).precision == "int8"
    assert "hand.engine was built without a passport" in caplog.text
    passport = engines.Passport(calibration_samples=tuple(statistics.samples))
    found = engines.build(int8, engine, passport=passport).passport
    assert set(found.calibration_samples or ()) == {sample.digest for sample in samples}


def in_hand(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def test_files_pairs_and_specs_as_a_person_has_them(tmp_path: Path) -> None:
    """The ranges are those of the command, whatever samples and spec came in."""
    spec = DIGITS / "preprocess.yaml"
    with np.load(DIGITS / "test.npz") as stored:
        test = dict(stored)
    calib = sorted((DIGITS / "calib").rglob("*.png"))
    found = []
    given = [
        (DIGITS / "calib", str(spec), DIGITS / "test.npz"),
        (calib, spec, tuple(test.values())),
        ([in_hand(path) for path in calib], Preprocess.from_yaml(spec).to_dict(), test),
    ]
    for number, (calib_data, preprocess, eval_data) in enumerate(given):
        result = build(
            str(DIGITS / "digits.onnx"),
            tmp_path / f"{number}/m.engine",
            calib_data=calib_data,
            preprocess=preprocess,
            eval_data=eval_data,
            calibrator="minmax",
            stop_after="onnx",
            target="tensorrt",
        )
        assert result.engine is None
        found.append(sha256_file(tmp_path / f"{number}/m.int8.onnx"))
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_dropp": 0.5}, r"no option 'max_dropp', expected one of .*max_drop"),
        ({"precision": "int9"}, r"precision is 'int9', expected one of fp32, fp16, int8"),
        ({"calib_batch": 0}, r"calib_batch \(--calib-batch\): '0' is not a whole number"),
        ({"implicit": "yes"}, r"implicit is 'yes', expected True or False"),
        ({"calib_data": 3}, r"samples are of type int, expected a path, an array"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str, model: Path) -> None:
    with pytest.raises(InputError, match=message):
        build(model, model.parent / "m.engine", **options)


def test_a_promise_that_cannot_be_kept_is_raised(model: Path, rng: np.random.Generator) -> None:
    x = rng.normal(size=(40, 16)).astype(np.float32)
    with pytest.raises(GateMissedError, match=r"--min-sqnr 200 is missed"):
        build(
            model,
            model.parent / "m.int8.engine",
            calib_data=x,
            target="cpu",
            min_sqnr=200,
            require_int8=0.5,
        )
    assert (model.parent / "m.int8.onnx").is_file()
