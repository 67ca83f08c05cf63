"""Improvement, sensitivities and search on real networks and data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import calibrators
import quantization
from artefacts.files import digest_of
from calibrators import Preprocess
from graphs.view import GraphView
from quantization.__main__ import main
from quantization.improve.improve import improve
from quantization.lint.lint import lint
from quantization.measure.execution import load_int8, load_onnxruntime
from quantization.measure.fidelity import compare, run_all
from quantization.placement.fusion_groups import fusion_groups, leave_float
from quantization.search.problem import Goal, Point, Search
from quantization.search.recipe import Recipe
from quantization.search.search import search
from quantization.search.splits import check_disjoint, split_digests

KWS = {"inputs": {"input": {"scale": 0.5847029, "zero_point": 83}}}
MOBILENET = {"resize": 146, "crop": 128, "scale": "1/128", "mean": 1}


class Real:
    """A prepared network, calibrated, with samples it has not seen."""

    def __init__(self, model: Path, data: Path, spec: dict[str, Any], learn: int, see: int) -> None:
        self.model = quantization.prepare(quantization.load_model(model))
        samples = calibrators.open_samples(
            data,
            inputs=calibrators.input_specs(self.model),
            preprocess=Preprocess.from_dict(spec),
        )
        chosen = list(samples[: learn + see])
        self.digests = [sample.digest for sample in chosen]
        self.learned = [dict(sample.inputs) for sample in chosen[:learn]]
        self.unseen = [dict(sample.inputs) for sample in chosen[learn:]]
        self.placement = quantization.place(self.model, profile="tensorrt")
        statistics = calibrators.observe(self.model, self.placement.tensors, chosen[:learn])
        self.ranges = calibrators.compute_ranges(statistics, method="mse")
        self.exact = run_all(load_onnxruntime(self.model), self.unseen)

    def sqnr_db(self, int8: onnx.ModelProto) -> float:
        return compare(load_int8(int8), self.unseen, self.exact).sqnr_db


@pytest.fixture(scope="module")
def keywords(assets: Path) -> Real:
    model = assets / "models" / "kws_dscnn_fp32.onnx"
    return Real(model, assets / "kws" / "kws01_1000.npz", KWS, 48, 150)


def test_improvement_keeps_what_it_learned_on_unseen_samples(keywords: Real) -> None:
    plain = quantization.insert_qdq(keywords.model, keywords.placement, keywords.ranges)
    best, trials = improve(keywords.model, keywords.placement, keywords.ranges, keywords.learned)
    int8 = best.quantized(keywords.placement)
    assert keywords.sqnr_db(int8) > keywords.sqnr_db(plain) + 1.0
    assert trials[0].methods.names == ()
    assert best.methods in [trial.methods for trial in trials]
    onnx.checker.check_model(int8, full_check=True)
    assert not [finding for finding in lint(int8) if finding.severity == "fatal"]
    assert quantization.place(best.model, profile="tensorrt").tensors == keywords.placement.tensors


def test_depthwise_networks_gain_most(assets: Path) -> None:
    real = Real(
        assets / "models" / "mobilenet_v1_0.25_128_fp32.onnx",
        assets / "imagenet" / "calib",
        MOBILENET,
        24,
        40,
    )
    best, _ = improve(real.model, real.placement, real.ranges, real.learned)
    plain = quantization.insert_qdq(real.model, real.placement, real.ranges)
    assert real.sqnr_db(best.quantized(real.placement)) > real.sqnr_db(plain) + 2.0


def test_equal_seeds_give_equal_models(keywords: Real) -> None:
    two = [
        improve(keywords.model, keywords.placement, keywords.ranges, keywords.learned[:12])[0]
        for _ in range(2)
    ]
    assert two[0].methods == two[1].methods
    assert two[0].ranges == two[1].ranges
    first, second = (each.quantized(keywords.placement) for each in two)
    assert first.SerializeToString() == second.SerializeToString()


def by_the_file(recipe: Recipe, path: Path) -> Recipe:
    recipe.save(path)
    loaded = Recipe.load(path)
    assert loaded.methods is not None
    return loaded


def test_search_to_recipe_to_the_same_model(keywords: Real, tmp_path: Path) -> None:
    best, _ = improve(keywords.model, keywords.placement, keywords.ranges, keywords.learned)
    parts = split_digests(keywords.digests[len(keywords.learned) :], selection_share=0.4)
    selection = [keywords.unseen[i] for i in parts[0]]
    learned = keywords.digests[: len(keywords.learned)]
    chosen_by = [keywords.digests[len(keywords.learned) + i] for i in parts[0]]
    check_disjoint({"calibration": learned, "selection": chosen_by})
    exact = [keywords.exact[i] for i in parts[0]]

    def score(int8: onnx.ModelProto) -> float:
        return compare(load_int8(int8), selection, exact).sqnr_db

    start = score(best.quantized(keywords.placement))
    seen: list[Point] = []
    found = search(
        Search(
            reference=keywords.model,
            improved=best,
            placement=keywords.placement,
            samples=selection,
            score=score,
            goal=Goal(minimum=start + 4.0, unit="dB SQNR"),
            state=tmp_path / "kws.search.json",
            report=seen.append,
        )
    )
    assert found.met
    assert found.point.score >= start + 4.0
    assert found.point.released
    assert 0 < found.point.int8_share < 1
    assert seen == list(found.points)

    recipe = by_the_file(
        Recipe(
            graph_hash=keywords.ranges.graph_hash,
            profile="tensorrt",
            released=found.point.released,
            calibrator="mse",
            methods=best.methods,
            samples_digest=digest_of(learned),
            found={"score": found.point.score, "unit": "dB SQNR"},
        ),
        tmp_path / "recipe.yaml",
    )
    groups = fusion_groups(GraphView(best.model), keywords.placement)
    placement = leave_float(
        keywords.placement, [g for g in groups if g.name in recipe.released], why="recipe"
    )
    again, _ = improve(
        keywords.model,
        keywords.placement,
        keywords.ranges,
        keywords.learned,
        variants=[recipe.methods or best.methods],
    )
    assert (
        again.quantized(placement).SerializeToString()
        == found.improved.quantized(found.placement).SerializeToString()
    )


def test_command_ranks_plots_and_writes(
    assets: Path, keywords: Real, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantization.save_model(keywords.model, tmp_path / "kws.prepared.onnx")
    keywords.ranges.save(tmp_path / "kws.ranges.json")
    np.savez(
        tmp_path / "samples.npz",
        input=np.concatenate([feeds["input"] for feeds in keywords.unseen[:8]]),
    )
    words = ["sensitivity", f"{tmp_path}/kws.prepared.onnx"]
    words += ["--ranges", f"{tmp_path}/kws.ranges.json", "--data", f"{tmp_path}/samples.npz"]
    words += ["--json", f"{tmp_path}/s.json", "--plot", f"{tmp_path}/s.png", "--num", "8"]
    assert main(words) == 0
    table = capsys.readouterr().out
    rows = json.loads((tmp_path / "s.json").read_text())
    assert rows[0]["group"]["name"] in table.splitlines()[1]
    gains = [row["gained"] for row in rows]
    assert gains == sorted(gains, reverse=True)
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    assert main([*words[:2], "--ranges", f"{tmp_path}/none.json", *words[4:]]) == 2
    assert "none.json does not exist" in capsys.readouterr().err
