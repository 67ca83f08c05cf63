"""The command as a user runs it: the whole path, and a sentence for each thing that fails."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import engines
from artefacts.errors import EngineError
from build_engine import main
from calibrators.__main__ import main as calibrators_main
from calibrators.tensorrt.cache import read_cache

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "01_digits"


@pytest.fixture
def tiny(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A small convolution model: input (N, 16, 8, 8), output (N, 32)."""
    weight = rng.normal(scale=0.1, size=(32, 16, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["output"], name="flat"),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tiny",
        [info("input", TensorProto.FLOAT, ["N", 16, 8, 8])],
        [info("output", TensorProto.FLOAT, ["N", 32])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "tiny.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def samples(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, input=rng.normal(size=(12, 16, 8, 8)).astype(np.float32))
    return path


def run(*flags: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main([str(flag) for flag in flags])
    out, err = capsys.readouterr()
    return code, out, err


def refused(out: Path, *flags: object, capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """Run a job that must fail: one sentence, the exit code, nothing half-written."""
    before = set(out.rglob("*")) if out.exists() else set()
    found, _, err = run(*flags, "--engine", out / "m.int8.engine", capsys=capsys)
    assert found == code, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    after = set(out.rglob("*")) if out.exists() else set()
    left = {p.name for p in after - before}
    assert not any(name.endswith((".part", ".engine", ".engine.json")) for name in left), left
    return err


def test_the_shipped_model_becomes_a_measured_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "digits.int8.engine"
    code, out, err = run(
        *("--onnx", DIGITS / "digits.onnx", "--engine", engine, "--target", "cpu"),
        *("--calib-data", DIGITS / "calib", "--preprocess", DIGITS / "preprocess.yaml"),
        *("--eval-data", DIGITS / "test.npz"),
        capsys=capsys,
    )
    assert code == 0, err
    for step in ("[1/5] prepare", "[2/5] calibrate", "[3/5] quantize", "[4/5] build", "[5/5] veri"):
        assert step in out
    manifest = engines.read_manifest(engine)
    measured = manifest.measured["accuracy"]
    assert measured["FP32 ONNX"]["top1"] >= 0.98
    assert measured["INT8 engine"]["top1"] >= measured["FP32 ONNX"]["top1"] - 0.005
    assert manifest.coverage is not None
    assert manifest.coverage.int8_mac_share >= 0.9
    assert manifest.passport.preprocess["color"] == "gray"
    ranges = json.loads((tmp_path / "digits.ranges.json").read_text())
    assert ranges["graph_hash"] == manifest.passport.improved_graph_hash


def test_a_fresh_process_gives_the_same_bits(
    tmp_path: Path, tiny: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "tiny.int8.engine"
    flags = ("--onnx", tiny, "--engine", engine, "--calib-data", samples, "--target", "cpu")
    assert run(*flags, capsys=capsys)[0] == 0
    program = (
        "import sys, numpy as np, engines\n"
        "data = np.load(sys.argv[2])['input']\n"
        "np.save(sys.argv[3], engines.load(sys.argv[1])({'input': data})['output'])\n"
    )
    answers = []
    for number in range(2):
        path = tmp_path / f"answer{number}.npy"
        subprocess.run(
            [sys.executable, "-c", program, str(engine), str(samples), str(path)],
            cwd=ROOT,
            check=True,
        )
        answers.append(path.read_bytes())
    assert answers[0] == answers[1]


@pytest.mark.parametrize(("stop", "last"), [("ranges", ".ranges.json"), ("onnx", ".int8.onnx")])
def test_stop_after(
    tmp_path: Path,
    tiny: Path,
    samples: Path,
    capsys: pytest.CaptureFixture[str],
    stop: str,
    last: str,
) -> None:
    out = tmp_path / "out"
    code, _, err = run(
        *("--onnx", tiny, "--engine", out / "t.int8.engine", "--calib-data", samples),
        *("--stop-after", stop),
        capsys=capsys,
    )
    assert code == 0, err
    assert (out / f"t{last}").is_file()
    assert not (out / "t.int8.engine").exists()


def test_fp32_needs_no_samples(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    engine = tmp_path / "tiny.fp32.engine"
    code, _, err = run(
        *("--onnx", tiny, "--engine", engine, "--precision", "fp32", "--target", "cpu"),
        capsys=capsys,
    )
    assert code == 0, err
    data = rng.normal(size=(3, 16, 8, 8)).astype(np.float32)
    with engines.load(engine) as loaded:
        assert loaded({"input": data})["output"].shape == (3, 32)


def test_other_samples_do_not_continue_the_old_statistics(
    tmp_path: Path,
    tiny: Path,
    samples: Path,
    rng: np.random.Generator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ("--onnx", tiny, "--engine", tmp_path / "t.int8.engine", "--stop-after", "ranges")
    assert run(*flags, "--calib-data", samples, capsys=capsys)[0] == 0
    first = (tmp_path / "t.ranges.json").read_bytes()
    np.savez(samples, input=rng.normal(scale=3, size=(5, 16, 8, 8)).astype(np.float32))
    code, out, err = run(*flags, "--calib-data", samples, capsys=capsys)
    assert code == 0, err
    assert "5 samples" in out
    assert (tmp_path / "t.ranges.json").read_bytes() != first


def test_no_such_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(tmp_path / "out", "--onnx", tmp_path / "no.onnx", capsys=capsys)
    assert "no.onnx" in err


def test_not_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg")
    shutil.copy(tmp_path / "x.jpg", tmp_path / "x.onnx")
    err = refused(tmp_path / "out", "--onnx", tmp_path / "x.onnx", capsys=capsys)
    assert "x.onnx" in err
    assert "JPEG" in err


def test_truncated_onnx(
    tmp_path: Path, tiny: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_bytes(tiny.read_bytes()[:-100])
    err = refused(tmp_path / "out", "--onnx", tiny, "--calib-data", samples, capsys=capsys)
    assert "tiny.onnx" in err


def test_no_samples(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(tmp_path / "out", "--onnx", tiny, capsys=capsys)
    assert "--calib-data" in err


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"input": np.zeros((4, 16, 8, 9), np.float32)}, ("input", "9")),
        ({"imput": np.zeros((4, 16, 8, 8), np.float32), "x": np.zeros((4, 9))}, ("input",)),
        ({"input": np.full((4, 16, 8, 8), "a")}, ("input",)),
        ({"input": np.zeros((0, 16, 8, 8), np.float32)}, ("0",)),
    ],
    ids=["shape", "name", "dtype", "none"],
)
def test_data_that_does_not_fit(
    tmp_path: Path,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
    arrays: dict[str, np.ndarray],
    words: tuple[str, ...],
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    err = refused(
        tmp_path / "out", "--onnx", tiny, "--calib-data", tmp_path / "bad.npz", capsys=capsys
    )
    for word in words:
        assert word in err


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_named_by_sample(
    tmp_path: Path,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
    value: float,
    rng: np.random.Generator,
) -> None:
    data = rng.normal(size=(9, 16, 8, 8)).astype(np.float32)
    data[7, 3, 2, 1] = value
    np.savez(tmp_path / "bad.npz", input=data)
    err = refused(
        tmp_path / "out", "--onnx", tiny, "--calib-data", tmp_path / "bad.npz", capsys=capsys
    )
    assert "7" in err


def test_empty_folder(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    err = refused(
        tmp_path / "out", "--onnx", tiny, "--calib-data", tmp_path / "none", capsys=capsys
    )
    assert "none" in err


def bomb() -> bytes:
    """A PNG of 60000 x 60000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    size = (60000).to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + bytes([8, 0, 0, 0, 0]))
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [b"", b"not an image", bomb()], ids=["empty", "text", "bomb"])
def test_image_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "x.png").write_bytes(content)
    err = refused(
        tmp_path / "out",
        *("--onnx", DIGITS / "digits.onnx", "--calib-data", folder),
        *("--preprocess", DIGITS / "preprocess.yaml"),
        capsys=capsys,
    )
    assert "x.png" in err


def test_unknown_key_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "p.yaml"
    spec.write_text("colour: gray\nresize: [32, 32]\n")
    err = refused(
        tmp_path / "out",
        *("--onnx", DIGITS / "digits.onnx", "--calib-data", DIGITS / "calib", "--preprocess", spec),
        capsys=capsys,
    )
    assert "colour" in err
    assert "color" in err.replace("colour", "")


def test_output_folder_that_cannot_be_written(
    tmp_path: Path, tiny: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file")
    code, _, err = run(
        *("--onnx", tiny, "--calib-data", samples),
        *("--engine", tmp_path / "out" / "m.int8.engine"),
        capsys=capsys,
    )
    assert code == 2
    assert "is not writable" in err


def test_evaluation_on_calibration_samples_is_refused(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    data = rng.normal(size=(6, 16, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "a.npz", input=data, labels=np.zeros(6, np.int64))
    np.savez(tmp_path / "b.npz", input=data[4:], labels=np.zeros(2, np.int64))
    err = refused(
        tmp_path / "out",
        *("--onnx", tiny, "--calib-data", tmp_path / "a.npz", "--eval-data", tmp_path / "b.npz"),
        capsys=capsys,
    )
    assert "holds 2 of the calibration samples" in err


@pytest.mark.parametrize("target", ["tensorrt"])
def test_a_target_that_is_not_here_is_one_sentence(
    tmp_path: Path,
    tiny: Path,
    samples: Path,
    capsys: pytest.CaptureFixture[str],
    target: str,
) -> None:
    if engines.resolve_target("auto") == "tensorrt":
        pytest.skip("TensorRT and a GPU are here")
    err = refused(
        tmp_path / "out",
        *("--onnx", tiny, "--calib-data", samples, "--target", target),
        capsys=capsys,
    )
    assert "tensorrt" in err.lower()


def test_the_real_tensorrt_rtx_builder_takes_the_demo_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    engine = tmp_path / "digits.int8.engine"
    code, out, err = run(
        *("--onnx", DIGITS / "digits.onnx", "--engine", engine, "--target", "tensorrt-rtx"),
        *("--calib-data", DIGITS / "calib", "--preprocess", DIGITS / "preprocess.yaml"),
        *("--eval-data", DIGITS / "test.npz"),
        capsys=capsys,
    )
    assert code == 0, err
    assert engine.stat().st_size > 10_000
    assert engines.read_manifest(engine).target == "tensorrt-rtx"
    assert "top1" in out


def test_two_profiles_by_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")
    engine = tmp_path / "digits.engine"
    code, _, err = run(
        *("--onnx", DIGITS / "digits.onnx", "--engine", engine, "--target", "tensorrt-rtx"),
        *("--precision", "fp32", "--optShapes", "image:1x1x32x32"),
        *("--optShapes", "image:8x1x32x32"),
        capsys=capsys,
    )
    assert code == 0, err
    found = [profile.max["image"] for profile in engines.read_manifest(engine).profiles]
    assert found == [(1, 1, 32, 32), (8, 1, 32, 32)]


def test_engine_of_another_target_corrupted_engine_and_manifest(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "t.fp32.engine"
    flags = ("--onnx", tiny, "--engine", engine, "--precision", "fp32", "--target", "cpu")
    assert run(*flags, capsys=capsys)[0] == 0
    good = engine.read_bytes()
    engine.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(EngineError, match=r"t\.fp32\.engine"):
        engines.load(engine)
    engine.write_bytes(good)
    engines.load(engine).close()
    beside = Path(f"{engine}.json")
    beside.write_text(beside.read_text().replace('"cpu"', '"tensorrt"', 1))
    with pytest.raises(EngineError):
        engines.load(engine)


def test_shards_merge_to_the_statistics_of_one_run(
    tmp_path: Path, tiny: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--onnx", tiny, "--stop-after", "ranges")
    data = ("--calib-data", samples)
    whole = tmp_path / "whole" / "t.int8.engine"
    assert run(*flags, *data, "--engine", whole, capsys=capsys)[0] == 0
    parts = tmp_path / "parts" / "t.int8.engine"
    for number in (1, 2, 3):
        shard = ("--shard", f"{number}/3")
        code, out, err = run(*flags, *data, "--engine", parts, *shard, capsys=capsys)
        assert code == 0, err
        assert f"shard{number}of3.stats.npz" in out
    merged = parts.with_name("merged.stats.npz")
    shards = [str(path) for path in sorted(parts.parent.glob("*shard*.stats.npz"))]
    assert len(shards) == 3
    assert calibrators_main(["merge", *shards, "-o", str(merged)]) == 0
    assert merged.read_bytes() == (whole.parent / "t.stats.npz").read_bytes()
    code, _, err = run(*flags, "--engine", parts, "--statistics", merged, capsys=capsys)
    assert code == 0, err
    assert (parts.parent / "t.ranges.json").read_bytes() == (
        whole.parent / "t.ranges.json"
    ).read_bytes()


def test_one_calibration_also_writes_tensorrts_cache(
    tmp_path: Path, tiny: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "t.calib.cache"
    code, _, err = run(
        *("--onnx", tiny, "--engine", tmp_path / "t.int8.engine", "--calib-data", samples),
        *("--calib-cache", cache, "--cache-version", "8.6.1", "--stop-after", "onnx"),
        capsys=capsys,
    )
    assert code == 0, err
    found = read_cache(cache.read_bytes())
    assert (found.version, found.algorithm) == ("8601", "EntropyCalibration2")
    prepared = onnx.load(tmp_path / "t.prepared.onnx")
    tensors = {name for node in prepared.graph.node for name in node.output} | {"input"}
    assert set(found.scales) == tensors
    ranges = json.loads((tmp_path / "t.ranges.json").read_text())["tensors"]
    assert found.scales["input"] == np.float32(ranges["input"]["amax"] / 127)


def test_a_quantized_model_is_built_as_it_is(
    tmp_path: Path, tiny: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ("--onnx", tiny, "--engine", tmp_path / "t.int8.engine", "--calib-data", samples)
    assert run(*first, "--target", "cpu", capsys=capsys)[0] == 0
    again = tmp_path / "again" / "t.int8.engine"
    code, out, err = run(
        *("--onnx", tmp_path / "t.int8.onnx", "--engine", again, "--target", "cpu"),
        capsys=capsys,
    )
    assert code == 0, err
    assert "taken as it is, not calibrated" in out
    data = np.load(samples)["input"]
    with engines.load(tmp_path / "t.int8.engine") as one, engines.load(again) as two:
        np.testing.assert_array_equal(
            one({"input": data})["output"], two({"input": data})["output"]
        )


@pytest.mark.parametrize("method", ["minmax", "mse", "percentile:99.9", "auto"])
def test_every_method_is_one_flag(
    tmp_path: Path, tiny: Path, samples: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    code, out, err = run(
        *("--onnx", tiny, "--engine", tmp_path / "t.int8.engine", "--calib-data", samples),
        *("--calibrator", method, "--target", "cpu"),
        capsys=capsys,
    )
    assert code == 0, err
    assert "dB against FP32" in out


def test_unknown_method(
    tmp_path: Path, tiny: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(
        tmp_path / "out",
        *("--onnx", tiny, "--calib-data", samples, "--calibrator", "entropie"),
        capsys=capsys,
    )
    assert "entropie" in err


def test_the_default_improves_on_plain_ranges_where_it_can(
    tmp_path: Path, tiny: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--onnx", tiny, "--calib-data", samples, "--target", "cpu")
    better, plain = tmp_path / "better" / "t.int8.engine", tmp_path / "plain" / "t.int8.engine"
    code, out, err = run(*flags, "--engine", better, capsys=capsys)
    assert code == 0, err
    assert "improving ranges, rounding and biases with 12 samples" in out
    assert "SQNR on samples held out" in out
    code, out, err = run(*flags, "--engine", plain, "--improve", "0", capsys=capsys)
    assert code == 0, err
    assert "improving" not in out
    measured = [
        engines.read_manifest(path).measured["accuracy"]["INT8 ONNX"]["sqnr_db"]
        for path in (better, plain)
    ]
    # Chosen on three held-out samples, so it may lose a little on the twelve.
    assert measured[0] > measured[1] - 0.5
