"""Recalibration on the cpu target: the data moves, the new engine follows, the old one stays."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

import engines
from build_engine import build
from calibrators import Statistics
from engines.manifest import manifest_path
from int8.main import main
from quantization.measure.execution import load_onnxruntime
from tests.networks import Builder

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

SHIFT = 6.0
SPEC = {"scale": 1.0, "dtype": "float32", "layout": "nchw", "resize": [8, 8]}


def network(seed: int) -> onnx.ModelProto:
    """A classifier of (N, 3, 8, 8) whose classes hang together with how large inputs are."""
    net = Builder(seed=seed)
    hidden = net.relu(net.conv(net.input("x", ("N", 3, 8, 8)), 16))
    pooled = net.op("GlobalAveragePool", net.relu(net.conv(hidden, 16)))
    flat = net.op("Flatten", pooled)
    return net.build("net", net.gemm(flat, 16, 10))


def rows(rng: np.random.Generator, count: int, scale: float = 1.0) -> np.ndarray:
    """Samples that differ in their channels, so that classes do."""
    channels = rng.normal(size=(count, 3, 1, 1))
    return (scale * (channels + rng.normal(size=(count, 3, 8, 8)))).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """An engine with the files of its build, and what a recorder kept of moved data."""

    folder: Path

    @property
    def engine(self) -> Path:
        return self.folder / "net.int8.engine"

    @property
    def new(self) -> Path:
        return self.folder / "net.v2.engine"

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    def hashes(self) -> dict[str, str]:
        """Of everything that the first build left."""
        found = sorted(self.folder.glob("net.*"))
        mine = [path for path in found if ".v" not in path.name]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in mine}

    def run(self, *words: object, engine: Path | None = None) -> int:
        return main(["recalibrate", str(engine or self.engine), *map(str, words)])

    def decision(self, name: str = "net.v2") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"{name}.decision.json").read_text())
        return found


def record(engine: Path, folder: Path, requests: np.ndarray) -> None:
    """A sample of requests as a service keeps them."""
    with (
        engines.Recorder(folder, share=1.0) as recorder,
        engines.load(engine, record=recorder) as loaded,
    ):
        for request in requests:
            loaded({"x": request[None]})
            while not recorder._waiting.empty():
                pass


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Built once; tests work on copies."""
    folder = tmp_path_factory.mktemp("recalibrate")
    rng = np.random.default_rng()
    onnx.save(network(3), folder / "fp32.onnx")
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    work = Work(folder=folder)
    build(
        folder / "fp32.onnx",
        work.engine,
        target="cpu",
        calibrator="minmax",
        calib_data={"x": rows(rng, 40)},
        preprocess=folder / "spec.yaml",
    )
    record(work.engine, work.samples, rows(rng, 60, SHIFT))
    labelled = rows(rng, 300, SHIFT)
    scores = load_onnxruntime(folder / "fp32.onnx")({"x": labelled})
    labels = next(iter(scores.values())).argmax(axis=1)
    np.savez(folder / "labelled.npz", x=labelled, labels=labels)
    return work


@pytest.fixture
def work(made: Work, tmp_path: Path) -> Work:
    shutil.copytree(made.folder, tmp_path / "w")
    return Work(folder=tmp_path / "w")


def test_the_new_engine_follows_the_data_and_the_old_one_stays(
    work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    before, manifest = work.hashes(), engines.read_manifest(work.engine)
    assert work.run("--calib-data", work.samples) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "[7/7] compare" in said
    assert "take the new one: the new engine is better: SQNR against FP32" in said
    assert work.hashes() == before

    decision = work.decision()
    found = decision["compared"]
    assert (decision["verdict"], found["unit"], found["samples"]) == ("take the new one", "dB", 24)
    assert found["interval"]["low"] > 10
    assert found["before"] + found["gain"] == pytest.approx(found["after"])
    assert (decision["new_samples"], decision["new"]["samples"]) == (36, 76)
    by_tensor = {move["tensor"]: move["ratio"] for move in decision["moves"]}
    assert 3 < by_tensor["x"] < 12
    assert f"- new: `{work.new}`, version 2" in work.new.with_name("net.v2.decision.md").read_text()

    new = engines.read_manifest(work.new)
    first, second = engines.versions_of(new)
    assert (first.engine_sha256, second.came_from) == (manifest.engine_sha256,) * 2
    assert (second.version, second.how, second.verdict) == (2, "merged", "take the new one")
    assert (first.samples, second.samples) == (40, 76)
    assert second.ranges_sha256 == new.passport.ranges_sha256 != first.ranges_sha256
    assert new.passport.preprocess == manifest.passport.preprocess is not None
    assert new.passport.settings == manifest.passport.settings
    assert new.passport.inputs is not None
    assert new.passport.inputs[0].samples == 36  # of production
    with engines.EnginePool(work.engine, 1, drift=True) as pool:  # and it can be rolled out
        pool.replace(work.new)
        assert pool.manifest.engine_sha256 == new.engine_sha256


def test_statistics_of_both_are_the_same_as_of_all_samples_at_once(work: Work) -> None:
    assert work.run("--calib-data", work.samples, "--quiet") == 0
    before, new, whole = (
        Statistics.load(work.folder / f"net.{name}.npz")
        for name in ("stats", "v2.production.stats", "v2.stats")
    )
    assert before.merge(new).digest == whole.digest
    held_back = 60 - len(new.samples)
    assert held_back == 24
    recorded = {hashlib.sha256(p.read_bytes()).hexdigest() for p in work.samples.glob("*.npz")}
    assert len(recorded) == 60


def test_again_and_again_counts_versions(work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    assert work.run("--calib-data", work.samples, "--quiet") == 0
    assert work.run("--calib-data", work.samples) == 2
    assert "net.v2.engine is there already, perhaps in service" in capsys.readouterr().err
    # The same samples hold nothing new for the second.
    assert work.run("--calib-data", work.samples, engine=work.new) == 2
    assert "hold nothing that" in capsys.readouterr().err
    more = work.folder / "more"
    record(work.new, more, rows(np.random.default_rng(), 40, SHIFT))
    code = work.run("--calib-data", more, engine=work.new)
    assert code in (0, 1)  # data of the same kind: better, worse or neither
    third = engines.versions_of(engines.read_manifest(work.folder / "net.v3.engine"))
    assert [record.version for record in third] == [1, 2, 3]
    assert main(["inspect", str(work.folder / "net.v3.engine")]) == 0
    told = capsys.readouterr().out
    assert "version       3, recalibrated with the data before and new" in told


def test_unchanged_data_is_no_reason_for_a_new_engine(work: Work) -> None:
    usual = work.folder / "usual"
    record(work.engine, usual, rows(np.random.default_rng(), 40))
    old = work.folder / "net.v2.engine"
    code = work.run("--calib-data", usual, "--quiet")
    decision = work.decision()
    assert code == (0 if decision["verdict"] == "take the new one" else 1)
    assert abs(decision["compared"]["gain"]) < 6  # and not the 10 dB and more of moved data
    assert old.is_file()


def test_labels_decide_by_mcnemars_test(work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--calib-data", work.samples, "--eval-data", work.folder / "labelled.npz")
    assert work.run(*words, "--replace", "--json") == 0, capsys.readouterr().err
    told = json.loads(capsys.readouterr().out)
    assert (told["exit_code"], told["error"], told["how"]) == (0, None, "replaced")
    found = told["compared"]
    assert (found["metric"], found["unit"], found["samples"]) == ("top1", "points", 300)
    split = found["mcnemar"]
    assert split["p_value"] < 0.05
    assert split["only_second"] > split["only_first"]
    assert found["gain"] == pytest.approx(
        100 * (split["only_second"] - split["only_first"]) / found["samples"]
    )
    # All that was recorded calibrates: others judge.
    assert (told["new_samples"], told["new"]["samples"]) == (60, 60)


def observed(work: Work, *flags: object, model: str = "net.prepared.onnx") -> Path:
    """Statistics of production, as they are made where the samples must stay."""
    placement = engines.read_manifest(work.engine)
    path = work.folder / "production.stats.npz"
    portable = ["--portable"] if placement.build.get("cpu_isa") == "portable" else []
    words = ["calibrate", "observe", str(work.folder / model), "--data", str(work.samples)]
    assert main([*words, "--profile", "cpu", *portable, "-o", str(path), *map(str, flags)]) == 0
    return path


def test_statistics_alone_make_an_engine_and_say_what_is_not_known(
    work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    statistics = observed(work, "--preprocess", work.folder / "spec.yaml")
    capsys.readouterr()
    before = work.hashes()
    assert work.run("--statistics", statistics) == 1
    said = capsys.readouterr().out
    assert "cannot be told: the engines were not compared: there are statistics and no sam" in said
    assert work.hashes() == before
    assert work.decision()["compared"] is None
    assert work.decision()["moves"][0]["ratio"] > 3
    new = engines.read_manifest(work.new)
    assert new.passport.samples == 100
    assert new.passport.inputs == engines.read_manifest(work.engine).passport.inputs
    assert any("engine.drift" in note for note in work.decision()["notes"])
    labelled = work.folder / "labelled.npz"
    words = ("--statistics", statistics, "--eval-data", labelled, "--force", "--quiet")
    assert work.run(*words) == 0
    assert work.decision()["verdict"] == "take the new one"
    # With samples that are in the statistics nothing is left to judge by.
    words = ("--statistics", statistics, "--calib-data", work.samples, "--force", "--quiet")
    assert work.run(*words) == 1
    assert "held back is calibrated with" in work.decision()["why"]


def test_an_improved_engine_is_improved_again(
    work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = work.folder / "fit.engine"
    words = {"target": "cpu", "improve": 8, "exclude": ["Conv_0"], "cpu_isa": "portable"}
    names = [node.name for node in onnx.load(work.folder / "net.prepared.onnx").graph.node]
    words["exclude"] = [next(name for name in names if "Conv" in name)]
    calib = {"x": rows(np.random.default_rng(), 16)}
    build(work.folder / "fp32.onnx", engine, calib_data=calib, **words)
    assert work.run("--calib-data", work.samples, engine=engine) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "improving ranges, rounding and biases with 8 samples" in said
    old, new = engines.read_manifest(engine), engines.read_manifest(work.folder / "fit.v2.engine")
    assert old.passport.placement == new.passport.placement
    assert new.passport.improvement_samples == 8
    assert new.passport.settings == old.passport.settings
    # Statistics alone: not improved, and said so.
    words = ("--statistics", work.folder / "fit.v2.production.stats.npz")
    assert work.run(*words, "--output", work.folder / "alone.engine", engine=engine) == 1
    notes = work.decision("alone")["notes"]
    assert any("was improved on 8 samples" in note and "--calib-data" in note for note in notes)


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
        (
            ["--statistics", work.folder / "other.stats.npz"],
            work.engine,
            "are of graph",
        ),
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


def observed_as(work: Work, name: str) -> Path:
    """The same samples, of which nothing says how they were prepared."""
    kept = (work.folder / "production.stats.npz").rename(work.folder / "kept")
    made = observed(work).rename(work.folder / name)
    kept.rename(work.folder / "production.stats.npz")
    return made


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
