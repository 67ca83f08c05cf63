"""A promise on accuracy, from the flags to an engine that keeps it or a sentence why not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import engines
import pipeline.search
import quantization.search.search
from build_engine import main
from tests.integration.searches import Work

HARMFUL = "n_Conv_0"


@pytest.fixture(scope="module", autouse=True)
def _even_costs() -> Iterator[None]:
    """Every layer that the profiler times counts alike: a busy machine's times are chance."""
    real = pipeline.search.measured_costs

    def even(*given: Any) -> Mapping[str, float] | None:
        found = real(*given)
        return None if found is None else dict.fromkeys(found, 1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.search, "measured_costs", even)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """One search for all tests: INT8 loses 50 points and more, most of them in one layer."""
    made = Work(tmp_path_factory.mktemp("search"), np.random.default_rng(7))
    assert made.run("found", "--max-drop", "20") == 0
    return made


def test_exactly_the_harmful_layer_is_left_in_float(work: Work) -> None:
    manifest = engines.read_manifest(work.file("found", ".int8.engine"))
    floating = manifest.passport.placement.floating
    assert [(entry.node, entry.rule) for entry in floating] == [(HARMFUL, "search")]
    assert floating[0].why == "the search needs it for a drop of 20 points of top1"
    assert manifest.passport.promise.released == (HARMFUL,)
    assert manifest.passport.promise.kept_on_selection is True
    assert manifest.coverage is not None
    assert HARMFUL not in manifest.coverage.int8_layers
    promise = manifest.measured["promise"]
    accuracy = manifest.measured["accuracy"]
    assert promise["kept"] is True
    drop = 100 * (accuracy["FP32 ONNX"]["top1"] - accuracy["INT8 engine"]["top1"])
    assert -promise["score"] == pytest.approx(drop)
    assert promise["interval"][0] <= promise["score"] <= promise["interval"][1]


def test_reported_on_samples_that_chose_nothing(work: Work) -> None:
    manifest = engines.read_manifest(work.file("found", ".int8.engine"))
    assert manifest.measured["promise"]["samples"] == 120
    assert manifest.passport.promise.selection_samples == 120
    assert manifest.measured["accuracy"]["FP32 ONNX"]["samples"] == 120
    assert manifest.passport.samples == 60


def test_recipe_front_and_plot_lie_beside_the_engine(work: Work) -> None:
    recipe = work.recipe("found")
    assert recipe["released"] == [HARMFUL]
    found = recipe["found"]
    assert isinstance(found, dict)
    assert found["promise"] == "a drop of 20 points of top1"
    costs = [point["cost"] for point in found["front"]]
    scores = [point["score"] for point in found["front"]]
    assert costs == sorted(costs)
    assert scores == sorted(scores)
    assert found["score"] >= -20
    assert found["cost_unit"] == "ms"
    assert work.file("found", ".pareto.png").read_bytes()[:4] == b"\x89PNG"


def test_the_recipe_makes_the_same_model_without_searching(work: Work) -> None:
    recipe = work.file("found", ".recipe.yaml")
    assert work.run("again", "--recipe", recipe) == 0
    assert work.file("again", ".int8.onnx").read_bytes() == (
        work.file("found", ".int8.onnx").read_bytes()
    )
    assert not work.file("again", ".search.json").exists()
    manifest = engines.read_manifest(work.file("again", ".int8.engine"))
    # Half of the evaluation samples chose the candidate: they are no test of it.
    assert manifest.measured["accuracy"]["INT8 engine"]["samples"] == 120


def test_a_recipe_of_other_samples_is_refused(
    work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = work.file("found", ".recipe.yaml")
    assert work.run("other", "--recipe", recipe, "--calib-num", "40") == 2
    assert "recipe is for calibration data" in capsys.readouterr().err


def test_a_killed_search_goes_on(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    real, flags = pipeline.search.load_int8_quickly, ("--max-drop", "20", "--stop-after", "onnx")
    loads = 0

    def killed(model: onnx.ModelProto, **given: Any) -> object:
        nonlocal loads
        loads += 1
        known = work.file("killed", ".search.json")
        if known.is_file() and json.loads(known.read_text())["sensitivities"]:
            raise KeyboardInterrupt
        return real(model, **given)

    monkeypatch.setattr(pipeline.search, "load_int8_quickly", killed)
    assert work.run("killed", *flags) == 130
    before = json.loads(work.file("killed", ".search.json").read_text())
    assert len(before["scores"]) >= 2
    assert not work.file("killed", ".recipe.yaml").exists()

    monkeypatch.setattr(pipeline.search, "load_int8_quickly", real)
    monkeypatch.setattr(quantization.search.search, "sensitivities", None)  # never called again
    assert work.run("killed", *flags) == 0
    after = json.loads(work.file("killed", ".search.json").read_text())
    assert after["saved_ms"] == before["saved_ms"]
    assert before["scores"].items() <= after["scores"].items()
    assert work.recipe("killed")["released"] == [HARMFUL]


def test_groups_return_to_int8_with_ranges_of_the_improved_graph(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Improving without the pooling in INT8 moves what it pools: its old range would be wrong."""
    harmless = "n_Flatten_0"
    monkeypatch.setattr(
        quantization.search.search,
        "affordable",
        lambda tried, order, budget: [g for g in order if g.name in (HARMFUL, harmless)],
    )
    assert work.run("two", "--max-drop", "20", "--stop-after", "onnx") == 0
    assert work.recipe("two")["released"] == [HARMFUL]


def test_the_time_limit_ends_the_search(work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    assert work.run("late", "--max-drop", "20", "--search-time", "0.001") == 1
    assert "the time limit ended the search before a drop of 20 points" in capsys.readouterr().err
    assert work.file("late", ".int8.engine").is_file()
    assert work.recipe("late")["released"] == []


def test_out_of_reach_is_exit_1_with_the_best_found_and_the_reason(
    work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    code = work.run("missed", "--min-sqnr", "60", "--require-int8", "0.9")
    assert code == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "--min-sqnr 60 is missed: the best found, " in err
    assert "expected at least 90.0%; most is lost in: " in err
    manifest = engines.read_manifest(work.file("missed", ".int8.engine"))
    assert manifest.measured["promise"]["kept"] is False
    best = manifest.measured["promise"]["score"]
    first = work.recipe("missed")["found"]
    assert isinstance(first, dict)
    assert first["kept_on_selection"] is False
    assert best < 60
    assert manifest.passport.placement.int8_mac_share >= 0.9


def test_without_labels_calibration_samples_are_held_out(work: Work) -> None:
    assert work.run("alike", "--min-agreement", "70%", evaluate=None) == 0
    manifest = engines.read_manifest(work.file("alike", ".int8.engine"))
    assert manifest.passport.samples == 36
    assert manifest.passport.promise.selection_samples == 12
    promise = manifest.measured["promise"]
    assert promise["samples"] == 12
    assert promise["score"] >= 70
    assert not math.isnan(promise["score"])
    recipe = work.file("alike", ".recipe.yaml")
    assert work.run("alike2", "--recipe", recipe, "--stop-after", "onnx", evaluate=None) == 0
    assert work.file("alike2", ".int8.onnx").read_bytes() == (
        work.file("alike", ".int8.onnx").read_bytes()
    )


def test_samples_in_two_roles_are_refused(work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [np.load(work.folder / f"{name}.npz")["input"][:9] for name in ("calib", "eval")]
    mixed = np.concatenate(parts)
    np.savez(work.folder / "mixed.npz", input=mixed, labels=np.zeros(18, np.int64))
    assert work.run("mixed", "--max-drop", "20", evaluate="mixed") == 2
    err = capsys.readouterr().err
    assert "holds 9 of the calibration samples" in err
    assert not work.file("mixed", ".recipe.yaml").exists()


OFF_BY_ONE = re.compile(
    r"FP32 has top1 0\.00% on (\d+) samples, expected clearly more than 14\.25% \(chance is "
    r"12\.50% for 8 classes\); labels plus 1 would give 100\.00%; write label_offset: 1 \(now 0\) "
    r"beside task: classification into the file for --task, or correct the labels\n"
)


def test_labels_off_by_one_are_refused_before_anything_is_improved(
    work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    assert work.run("off", "--max-drop", "20", evaluate="off") == 2
    said = capsys.readouterr()
    start = "error: --max-drop 20 has a baseline near chance: "
    assert said.err.startswith(start)
    found = OFF_BY_ONE.fullmatch(said.err.removeprefix(start))
    assert found is not None
    samples = len(np.load(work.folder / "off.npz")["labels"])
    assert int(found[1]) == samples // 2  # those that would have chosen
    assert "improving" not in said.out
    assert not work.file("off", ".recipe.yaml").exists()
    assert not work.file("off", ".int8.onnx").exists()


def test_a_recipe_does_not_get_around_it(work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = work.file("found", ".recipe.yaml")
    flags = ("--recipe", recipe, "--max-drop", "20")
    assert work.run("off2", *flags, "--stop-after", "onnx", evaluate="off") == 2
    assert OFF_BY_ONE.search(capsys.readouterr().err)
    assert work.run("off2", *flags, evaluate="off") == 2
    assert OFF_BY_ONE.search(capsys.readouterr().err)


def test_labels_off_by_one_are_one_line_where_nothing_is_promised(
    work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    task = work.folder / "task.yaml"
    task.write_text("task: classification\nlabel_offset: 1\n")
    assert work.run("off3", evaluate="off") == 0
    said = capsys.readouterr().err
    found = OFF_BY_ONE.search(said)
    assert found is not None
    assert int(found[1]) == len(np.load(work.folder / "off.npz")["labels"])
    assert f"      warning: {found[0]}" in said
    assert said.count("warning: FP32") == 1
    assert work.run("off4", "--task", task, evaluate="off") == 0
    assert "warning: FP32" not in capsys.readouterr().err


def test_a_quantized_model_cannot_be_searched(
    work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--onnx", work.file("found", ".int8.onnx"), "--engine", work.folder / "q/q.engine"]
    words += ["--calib-data", work.folder / "calib.npz", "--min-sqnr", "20"]
    assert main([str(word) for word in words]) == 2
    assert "which is quantized already, expected the float model" in capsys.readouterr().err


def test_a_model_with_a_fixed_batch(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Work(tmp_path, rng, batch=4)
    assert work.run("found", "--max-drop", "20") == 0
    released = work.recipe("found")["released"]
    assert isinstance(released, list)
    assert HARMFUL in released
    text = capsys.readouterr().out
    assert "improving ranges, rounding and biases with 4 batches of 4 samples" in text
    recipe = work.file("found", ".recipe.yaml")
    assert work.run("again", "--recipe", recipe) == 0
    made = [work.file(out, ".int8.onnx").read_bytes() for out in ("found", "again")]
    assert made[0] == made[1]
