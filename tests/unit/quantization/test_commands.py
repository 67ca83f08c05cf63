"""python -m quantization: files in, files out, exit codes, one sentence for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibrators import input_specs, observe, open_samples
from calibrators.ranges.ranges import Ranges
from calibrators.tensorrt.cache import read_cache
from quantization import load_model, prepare, save_model
from quantization.__main__ import COMMANDS, main
from quantization.lint.lint import lint
from tests.lint_models import BROKEN, CLEAN, lint_model
from tests.networks import NETWORKS
from tests.observed import quantized, random_feeds


@pytest.fixture
def files(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder with float.onnx, int8.onnx and samples.npz."""
    model = prepare(NETWORKS["resnet_basic"]())
    feeds = random_feeds(model, rng, batch=4)
    onnx.save(model, tmp_path / "float.onnx")
    onnx.save(quantized(model, feeds), tmp_path / "int8.onnx")
    np.savez(tmp_path / "samples.npz", **feeds)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert COMMANDS[command].summary.split()[0] in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_model_is_a_sentence(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = {
        "lint": [],
        "simulate": ["also-none.onnx", "--data", "none.npz"],
        "sensitivity": ["--ranges", "none.ranges.json", "--data", "none.npz"],
        "insert": ["--ranges", "none.ranges.json", "--output", str(tmp_path / "out.onnx")],
    }.get(command, ["--output", str(tmp_path / "out.onnx")])
    assert main([command, str(tmp_path / "none.onnx"), *extra]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: model ")
    assert "none.onnx does not exist" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_lint_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    save_model(lint_model(*CLEAN["conv"]), path)
    assert main(["lint", str(path)]) == 0
    assert "nothing to mend" in capsys.readouterr().out
    save_model(lint_model(*BROKEN["concat-scales"]), path)
    assert main(["lint", str(path)]) == 0
    assert "slow: concat-scales (1)" in capsys.readouterr().out
    save_model(lint_model(*BROKEN["zero-point"]), path)
    assert main(["lint", str(path)]) == 1
    text = capsys.readouterr().out
    for part in ("fatal: zero-point (2)", "why:", "mend:", "see:", "- QuantizeLinear:q: zero"):
        assert part in text
    assert main(["lint", str(path), "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["builds"] is False
    assert content["findings"][0]["rule"] == "zero-point"
    assert set(content["findings"][0]) == {
        *("rule", "severity", "node", "found", "why", "mend", "link")
    }


def test_prepare_writes_the_graph(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(files / "float.onnx"), "--output", str(files / "p.onnx")]) == 0
    assert load_model(files / "p.onnx").graph == load_model(files / "float.onnx").graph
    assert "nodes became" in capsys.readouterr().out


def test_import_says_what_it_did(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(files / "int8.onnx"), "--output", str(files / "out.onnx")]) == 0
    assert "QDQ model of" in capsys.readouterr().out
    assert not [f for f in lint(load_model(files / "out.onnx")) if f.severity == "fatal"]
    assert main(["import", str(files / "float.onnx"), "--output", str(files / "no.onnx")]) == 2
    assert "expected a quantized model" in capsys.readouterr().err
    assert not (files / "no.onnx").exists()


def test_strip_writes_model_ranges_and_cache(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, ranges, cache = (files / n for n in ("plain.onnx", "plain.ranges.json", "plain.cache"))
    flags = ["--output", out, "--ranges", ranges, "--cache", cache, "--tensorrt", "8.6.1"]
    flags += ["--algorithm", "MinMaxCalibration"]
    assert main(["strip", str(files / "int8.onnx"), *map(str, flags)]) == 0
    assert "QuantizeLinear" not in {node.op_type for node in load_model(out).graph.node}
    read = read_cache(cache.read_bytes())
    assert read.header == "TRT-8601-MinMaxCalibration"
    assert set(read.scales) == set(Ranges.load(ranges).tensors)
    assert read.header in capsys.readouterr().out


def test_fp16_says_what_stayed(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = load_model(files / "float.onnx")
    kept, large = model.graph.node[3], model.graph.node[-1].output[0]
    (loud,) = (value * 1e7 for value in np.load(files / "samples.npz").values())
    np.savez(files / "loud.npz", **{model.graph.input[0].name: loud})
    samples = open_samples(files / "loud.npz", inputs=input_specs(model))
    observe(model, [large], samples).save(files / "float.stats.npz")
    flags = ["--output", files / "half.onnx", "--keep", kept.name]
    flags += ["--stats", files / "float.stats.npz"]
    assert main(["fp16", str(files / "int8.onnx"), *map(str, flags)]) == 0
    text = capsys.readouterr().out
    assert "2 stay in float32" in text
    assert f"{kept.name}: asked for" in text
    assert f"tensor {large} reaches" in text
    types = {tensor.data_type for tensor in load_model(files / "half.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types


def test_simulate_writes_table_json_and_plot(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [files / "int8.onnx", "--num", 2, "--data", files / "samples.npz"]
    flags += ["--json", files / "errors.json", "--plot", files / "errors.png"]
    assert main(["simulate", str(files / "float.onnx"), *map(str, flags)]) == 0
    assert "SQNR dB" in capsys.readouterr().out
    rows = json.loads((files / "errors.json").read_text())
    assert rows[0]["sqnr_db"] < 60
    assert (files / "errors.png").stat().st_size > 1000


def test_unwritable_folder_is_a_sentence(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "file").write_text("not a folder")
    output = files / "file" / "p.onnx"
    assert main(["prepare", str(files / "float.onnx"), "--output", str(output)]) == 2
    assert "is not writable" in capsys.readouterr().err


def test_debug_shows_the_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(tmp_path / "none.onnx"), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
