"""Recalibration on the cpu target: the data moves, the new engine follows, the old one stays."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnx
import pytest

import engines
from build_engine import build
from calibrators import Statistics
from int8.main import main
from tests.integration.recalibration.work import (
    SHIFT,
    Work,
    observed,
    record,
    rows,
)

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")


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
    assert 10 < found["interval"]["low"] < found["gain"] < found["interval"]["high"]
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
    ratios = [move["ratio"] for move in decision["moves"]]
    assert ratios
    assert max(ratios) < SHIFT / 2  # largest values of other samples, and not those of moved data
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
