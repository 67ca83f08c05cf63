"""What recalibration refuses, and what it makes of answers without scores."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import engines
from build_engine import build
from engines.manifest import manifest_path
from tests.integration.recalibration.work import (
    SHIFT,
    Work,
    network,
    observed,
    observed_as,
    rows,
)
from tests.networks import Builder

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")


def test_bad_input_is_one_sentence_and_touches_nothing(
    work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    before = work.hashes()
    statistics = observed(work, "--preprocess", work.folder / "spec.yaml")
    bare = observed_as(work, "bare.stats.npz")
    onnx.save(network(2), work.folder / "other.onnx")
    foreign = build(
        work.folder / "other.onnx",
        work.folder / "other.engine",
        target="cpu",
        calibrator="minmax",
        calib_data={"x": rows(np.random.default_rng(), 8)},
        stop_after="ranges",
    )
    assert foreign.engine is None
    damaged = work.folder / "damaged.stats.npz"
    raw = bytearray(statistics.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    damaged.write_bytes(raw)
    (work.folder / "empty").mkdir()
    build(work.folder / "fp32.onnx", work.folder / "float.engine", target="cpu", precision="fp32")
    alone = work.folder / "alone" / "net.int8.engine"
    alone.parent.mkdir()
    for path in (work.engine, manifest_path(work.engine)):
        shutil.copy(path, alone.parent)
    few = work.folder / "few"
    few.mkdir()
    for path in sorted(work.samples.glob("*.npz"))[:3]:
        shutil.copy(path, few)
    capsys.readouterr()
    cases: list[tuple[list[object], Path, str]] = [
        ([], work.engine, "no new data, expected --calib-data"),
        (["--statistics", work.folder / "other.stats.npz"], work.engine, "are of graph"),
        (["--statistics", bare], work.engine, "were taken with preprocessing none, expected {"),
        (["--statistics", damaged], work.engine, "damaged.stats.npz"),
        (["--statistics", work.folder / "none.npz"], work.engine, "does not exist"),
        (["--statistics", work.folder / "net.stats.npz"], work.engine, "hold 40 of 40 samples"),
        (["--calib-data", work.folder / "empty"], work.engine, "empty"),
        (["--calib-data", few], work.engine, "hold 3 distinct samples, expected at least 4"),
        (["--calib-data", work.samples], work.folder / "float.engine", "is fp32, expected int8"),
        (["--calib-data", work.samples], alone, "no net.int8.onnx beside"),
        (["--calib-data", work.samples], work.folder / "gone.engine", "does not exist"),
        (
            ["--calib-data", work.samples, "--output", work.folder / "net.engine"],
            work.engine,
            "expected a name of its own",
        ),
    ]
    for words, engine, said in cases:
        assert work.run(*words, engine=engine) == 2, (words, said)
        err = capsys.readouterr().err
        assert err.startswith("error: "), err
        assert err.count("\n") == 1, err
        assert said in err, err
        assert not list(work.folder.glob("*.v2.engine*"))
    assert work.hashes() == before


def test_files_of_the_build_that_are_missing_or_of_another_build(
    work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    own = work.folder / "net.stats.npz"
    whole = own.read_bytes()
    own.unlink()
    assert work.run("--calib-data", work.samples) == 2
    assert "no net.stats.npz beside" in (err := capsys.readouterr().err)
    assert "--replace" in err
    own.write_bytes(whole[:-1])
    assert work.run("--calib-data", work.samples) == 2
    assert "as the manifest of" in capsys.readouterr().err
    # Of production alone it can be made without, and which ranges moved is not known.
    assert work.run("--calib-data", work.samples, "--replace", "--quiet") == 0
    assert work.decision()["moves"] == []
    page = work.new.with_name("net.v2.decision.md").read_text()
    assert "Which moved is not known" in page
    record = engines.versions_of(engines.read_manifest(work.new))[-1]
    assert (record.how, record.samples) == ("replaced", 36)


def test_answers_without_scores_are_compared_with_those_of_fp32(work: Work) -> None:
    net = Builder(seed=3)
    hidden = net.relu(net.conv(net.input("x", ("N", 3, 8, 8)), 16))
    flat = net.op("Flatten", net.op("GlobalAveragePool", net.relu(net.conv(hidden, 16))))
    model = net.build("net", net.op("ArgMax", net.gemm(flat, 16, 10), axis=1, keepdims=0))
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    onnx.save(model, work.folder / "classes.onnx")
    rng = np.random.default_rng()
    engine = work.folder / "classes.engine"
    settings = {"target": "cpu", "calibrator": "minmax"}
    build(work.folder / "classes.onnx", engine, calib_data={"x": rows(rng, 20)}, **settings)
    np.savez(work.folder / "moved.npz", x=rows(rng, 400, SHIFT))
    assert work.run("--calib-data", work.folder / "moved.npz", "--quiet", engine=engine) == 0
    found = work.decision("classes.v2")["compared"]
    assert (found["metric"], found["samples"]) == ("same answer as FP32", 160)
    assert found["mcnemar"]["only_second"] > found["mcnemar"]["only_first"]
