"""Files that go to Polygraphy's command line and come from it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import calibrators
from artefacts.errors import InputError
from build_engine import build, main
from tests.engine_models import convnet, save

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")
pytest.importorskip("polygraphy", reason="needs pip install '.[tensorrt]'")

RUN = Path(sys.executable).parent / "polygraphy"


def polygraphy(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RUN, *words], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


def said_command(out: str) -> list[str]:
    (line,) = [line for line in out.splitlines() if "polygraphy run" in line]
    return shlex.split(line)


def test_saved_outputs_are_compared_by_the_command_that_is_said(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(convnet(rng, quantized=False), tmp_path)
    rows = rng.normal(size=(12, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", input=rows)
    outputs = tmp_path / "of the graph.json"
    flags = ["--onnx", model, "--engine", tmp_path / "m.int8.engine", "--target", "cpu"]
    flags += ["--calib-data", tmp_path / "rows.npz", "--save-outputs", outputs]
    assert main([str(flag) for flag in flags]) == 0
    program, *words = said_command(capsys.readouterr().out)
    assert program == "polygraphy"
    done = polygraphy(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "PASSED" in done.stdout
    assert len(json.loads((tmp_path / "of the graph.inputs.json").read_text())) == 8
    assert 10.0 <= float(words[-1]) <= 60.0
    # A machine that computes something else is found: here, from other inputs.
    inputs = tmp_path / "of the graph.inputs.json"
    feeds = json.loads(inputs.read_text())
    inputs.write_text(json.dumps(feeds[1:] + feeds[:1]))
    done = polygraphy(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "FAILED" in done.stdout


@pytest.mark.parametrize("name", ["inputs.json", "inputs"], ids=["file", "folder"])
def test_saved_inputs_are_samples(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    model = save(convnet(rng, quantized=False), tmp_path)
    words = ["run", str(model), "--onnxrt", "--iterations", "6", "--save-inputs", name]
    done = polygraphy(*words, "--input-shapes", "input:[1,3,8,8]", cwd=tmp_path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    result = build(
        model, tmp_path / "m.int8.engine", calib_data=tmp_path / name, target="cpu", improve=0
    )
    assert result.manifest is not None
    specs = calibrators.input_specs(onnx.load(model))
    wanted = {sample.digest for sample in calibrators.open_samples(tmp_path / name, inputs=specs)}
    assert len(wanted) == 6
    assert set(result.manifest.passport.calibration_samples) == wanted


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"save_outputs": "outputs"}, "--save-outputs is outputs, expected a name .*json"),
        ({"save_outputs": "o.json", "stop_after": "onnx"}, "--save-outputs with --stop-after"),
    ],
)
def test_what_could_not_be_saved_is_refused_first(
    options: dict[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        build("m.onnx", tmp_path / "m.engine", calib_data="rows.npz", **options)


def test_our_samples_are_a_data_loader(tmp_path: Path, rng: np.random.Generator) -> None:
    """Polygraphy's runners, and its calibrator of TensorRT, take what our batches feed."""
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.comparator import Comparator

    model = save(convnet(rng, quantized=False), tmp_path)
    rows = rng.normal(size=(5, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", input=rows)
    inputs = calibrators.input_specs(onnx.load(model))
    samples = calibrators.open_samples(tmp_path / "rows.npz", inputs=inputs)
    loader = [batch.inputs for batch in calibrators.batches(samples, 1, inputs=inputs)]
    results = Comparator.run([OnnxrtRunner(SessionFromOnnx(str(model)))], data_loader=loader)
    assert [len(iterations) for _, iterations in results.items()] == [5]
