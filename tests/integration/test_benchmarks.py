"""The command on real engines of the shipped example."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import calibrators
import engines
import quantization
from artefacts.files import sha256_file
from benchmarks.__main__ import main
from benchmarks.report import load_report
from calibrators.preprocessing.preprocess import Preprocess
from graphs.identity import graph_hash

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "01_digits"
QUICK = ["--duration", "0.15", "--limit", "0.2", "--warmUp", "20", "--no-probe"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FP32 and INT8 engines of the digits model for this CPU, calibrated on 32 samples."""
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("engines")
    spec = Preprocess.from_yaml(DIGITS / "preprocess.yaml")
    prepared = quantization.prepare(quantization.load_model(DIGITS / "digits.onnx"))
    inputs = calibrators.input_specs(prepared)
    placement = quantization.place(prepared, profile="cpu", portable=True)
    samples = calibrators.open_samples(DIGITS / "calib", inputs=inputs, preprocess=spec, limit=32)
    statistics = calibrators.observe(prepared, placement.tensors, samples, batch_size=8)
    ranges = calibrators.compute_ranges(statistics, method="minmax")
    int8 = quantization.insert_qdq(prepared, placement, ranges)
    statistics.save(folder / "digits.stats.npz")
    ranges.save(folder / "digits.ranges.json")
    onnx.save(prepared, folder / "digits.prepared.onnx")
    passport = engines.Passport(
        graph_hash=graph_hash(prepared),
        statistics_sha256=sha256_file(folder / "digits.stats.npz"),
        ranges_sha256=sha256_file(folder / "digits.ranges.json"),
        preprocess=spec.to_dict(),
        calibration_samples=tuple(sorted(sample.digest for sample in samples)),
    )
    for name, model, precision in (("fp32", prepared, "fp32"), ("int8", int8, "int8")):
        onnx.save(model, folder / f"{name}.onnx")
        options = engines.BuildOptions(target="cpu", precision=precision)
        engines.build(folder / f"{name}.onnx", folder / f"{name}.engine", options, passport)
    return folder


def test_two_engines_are_compared(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"{built}/fp32.engine", f"{built}/int8.engine", "--data", f"{DIGITS}/test.npz"]
    words += ["--num", "250"]
    outputs = [f"--{kind}={tmp_path}/report.{kind}" for kind in ("json", "markdown", "csv")]
    assert main([*words, *QUICK, *outputs, "--report", f"{tmp_path}/report.html"]) == 0
    printed = capsys.readouterr().out
    report = load_report(tmp_path / "report.json")
    fp32, int8 = report.systems
    assert (fp32.name, int8.name) == ("fp32", "int8")
    assert (fp32.target, int8.precision) == ("cpu", "int8")
    assert fp32.accuracy is not None
    assert int8.accuracy is not None
    assert fp32.accuracy.value > 0.98
    assert abs(fp32.accuracy.value - int8.accuracy.value) < 0.02
    assert int8.accuracy.agreement is not None
    assert int8.accuracy.agreement.outputs["logits"].cosine > 0.95
    assert int8.size_bytes == (built / "int8.engine").stat().st_size
    assert int8.int8_mac_share is not None
    assert int8.int8_mac_share > 0.9
    for system in report.systems:
        # The profiler found every layer of the manifest again, in the same precision.
        assert all(layer.time_ms is not None for layer in system.layers)
        named = {node: kernel.precision for kernel in system.kernels for node in kernel.nodes}
        assert all(named[layer.name] == layer.precision for layer in system.layers)
    assert fp32.tensors == ()
    assert int8.tensors[0].op_type == "input"
    logits = int8.tensors[-1]
    assert logits.tensor == "logits"
    assert logits.sqnr_db is not None
    assert abs(logits.sqnr_db - (int8.accuracy.agreement.outputs["logits"].sqnr_db or 0)) < 6
    assert all(layer.sqnr_db is not None for layer in int8.layers)
    assert {entry.method for entry in report.ranges} == {"minmax"}
    for entry in report.ranges:
        assert sum(entry.counts) > 0
        # minmax clips nothing: no value lies beyond the bin of the threshold.
        assert not any(entry.counts[int(entry.amax / entry.width) + 1 :])
    assert len(fp32.latency.rounds_ms) == len(int8.latency.rounds_ms)
    assert "speed-up" in printed
    assert "int8" in (tmp_path / "report.csv").read_text()
    assert "## Accuracy" in (tmp_path / "report.markdown").read_text()
    assert "<svg " in (tmp_path / "report.html").read_text()


def test_plain_onnx_is_the_reference_of_an_engine(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"{DIGITS}/digits.onnx", f"{built}/fp32.engine", "--data", f"{DIGITS}/test.npz"]
    assert main([*words, *QUICK, "--num", "40", "--json", f"{tmp_path}/r.json"]) == 0
    reference, engine = load_report(tmp_path / "r.json").systems
    assert reference.target == "onnxruntime"
    assert all(layer.time_ms is not None for layer in reference.layers)
    assert {layer.name for layer in reference.layers} == {layer.name for layer in engine.layers}
    assert engine.accuracy is not None
    assert engine.accuracy.agreement is not None
    # Two runtimes, one model, float32: they agree far below a quantization step.
    likeness = engine.accuracy.agreement.outputs["logits"]
    assert likeness.sqnr_db is None or likeness.sqnr_db > 80
    assert "digits" in capsys.readouterr().out


def test_a_missed_limit_ends_with_1_and_the_reason(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"{built}/fp32.engine", f"{built}/int8.engine", "--data", f"{DIGITS}/test.npz"]
    words += [*QUICK, "--num", "20", "--json", f"{tmp_path}/r.json"]
    assert main([*words, "--min-speedup", "1000"]) == 1
    assert "speed-up of int8 is " in capsys.readouterr().err
    assert [check.passed for check in load_report(tmp_path / "r.json").gate] == [False]
    assert main([*words, "--max-drop", "100"]) == 0


def test_calibration_samples_are_refused(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"{built}/fp32.engine", f"{built}/int8.engine", "--data", f"{DIGITS}/calib"]
    assert main([*words, *QUICK]) == 2
    assert "is one of the calibration samples of int8" in capsys.readouterr().err


def test_data_without_labels_compare_outputs(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = sorted((DIGITS / "calib").glob("*"))[-1]
    words = [f"{built}/fp32.onnx", f"{built}/int8.onnx", "--data", str(image)]
    words += ["--preprocess", f"{DIGITS}/preprocess.yaml", "--json", f"{tmp_path}/r.json"]
    assert main([*words, *QUICK]) == 0
    accuracy = load_report(tmp_path / "r.json").systems[1].accuracy
    assert accuracy is not None
    assert accuracy.metric == ""
    assert accuracy.agreement is not None
    assert "no labels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.engine", "--data", "x"], "none.engine"),
        (["DIGITS/digits.onnx", "--data", "none.npz"], "none.npz"),
        (["DIGITS/digits.onnx", "--data", "DIGITS/test.npz", "--task", "none.yaml"], "none.yaml"),
        (["DIGITS/digits.onnx", "--data", "DIGITS/test.npz", "--baseline", "r.json"], "r.json"),
        (["DIGITS/digits.onnx", "--data", "DIGITS/test.npz", "--duration", "0"], "min_time_s"),
        (["table", "none.json"], "none.json"),
        (["render", "none.json"], "none.json"),
    ],
)
def test_bad_input_is_one_sentence_and_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.replace("DIGITS", str(DIGITS)) for word in words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_a_stored_report_is_rendered_again(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"{built}/fp32.engine", "--data", f"{DIGITS}/test.npz", "--num", "10", *QUICK]
    assert main([*words, "--json", f"{tmp_path}/r.json", "--markdown", f"{tmp_path}/a.md"]) == 0
    assert main(["render", f"{tmp_path}/r.json", "--markdown", f"{tmp_path}/b.md"]) == 0
    assert (tmp_path / "a.md").read_text() == (tmp_path / "b.md").read_text()
    capsys.readouterr()
    assert main(["table", f"{tmp_path}/r.json"]) == 0
    assert "| fp32 | cpu fp32 |" in capsys.readouterr().out


def test_load_and_sweeps_of_a_real_engine(built: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlperf_loadgen")
    words = [f"{built}/int8.engine", "--data", f"{DIGITS}/test.npz", "--num", "30", *QUICK]
    words += ["--scenario", "SingleStream", "--scenario", "Server", "--rate", "400"]
    words += ["--scenario-seconds", "0.3", "--logs", f"{tmp_path}/logs"]
    words += ["--batches", "1,4", "--infStreams", "1,2", "--json", f"{tmp_path}/r.json"]
    assert main(words) == 0
    report = load_report(tmp_path / "r.json")
    assert [result.scenario for result in report.scenarios] == ["SingleStream", "Server"]
    assert {(p.kind, p.size) for p in report.sweeps} == {
        ("batch", 1), ("batch", 4), ("threads", 1), ("threads", 2),
    }  # fmt: skip
    assert (tmp_path / "logs" / "Server-int8" / "mlperf_log_detail.txt").is_file()


def test_an_engine_is_probed_in_a_fresh_process(built: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "probe", f"{built}/int8.engine"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["load_ms"] > 0
    assert found["host_peak_bytes"] > found["host_growth_bytes"] > 0
    assert found["device_bytes"] is None or found["device_bytes"] >= 0
