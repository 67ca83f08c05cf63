"""recipe.yaml: round trip, and what a damaged or foreign one says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from artefacts.errors import ArtefactError, InputError
from quantization.improve.methods import Methods
from quantization.search.recipe import Recipe


def recipe(**changes: object) -> Recipe:
    fields: dict[str, object] = {
        "graph_hash": "a" * 64,
        "profile": "tensorrt",
        "exclude": ("/head/",),
        "released": ("Conv_1", "Conv_7"),
        "calibrator": "mse",
        "methods": Methods(refitting=False),
        "seed": 3,
        "samples_digest": "b" * 64,
        "found": {"score": 31.5, "unit": "dB SQNR", "int8_share": 0.93},
    }
    return Recipe(**{**fields, **changes})  # type: ignore[arg-type]


FRONT = {"released": [], "front": [{"released": ["Conv_1"], "cost": 0.5, "score": None}]}


@pytest.mark.parametrize(
    "changes", [{}, {"methods": None, "released": (), "found": {}}, {"found": FRONT}]
)
def test_round_trip(changes: dict[str, object], tmp_path: Path) -> None:
    recipe(**changes).save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe(**changes)


def test_it_reads_like_a_recipe(tmp_path: Path) -> None:
    recipe().save(tmp_path / "recipe.yaml")
    text = (tmp_path / "recipe.yaml").read_text()
    assert "released:\n- Conv_1\n- Conv_7\n" in text
    assert "refitting: false" in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format: 1", "format: 9", "format is not 1"),
        ("seed: 3", "seed: three", "seed is 'three', not a whole number"),
        ("calibrator: mse", "calibrator: [1]", r"calibrator is \[1\], not text"),
        ("refitting: false", "refitting: 7", "methods are not all true or false"),
        ("refitting: false", "refitng: false", "refitng"),
        ("seed: 3", "sed: 3", "unknown field 'sed'"),
        ("- Conv_7", "- 7", "released is no list of names"),
        ("seed: 3", "seed: !!python/object/apply:os.system [ls]", "could not determine"),
        ("seed: 3", "seed: [", "cannot be read"),
    ],
)
def test_damage_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    recipe().save(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ArtefactError, match=message):
        Recipe.load(path)


def test_another_model_or_other_samples_are_refused() -> None:
    recipe().check(graph_hash="a" * 64, samples_digest="b" * 64)
    with pytest.raises(
        ArtefactError, match="recipe is for prepared graph aaaaaaaaaaaa, found cccc"
    ):
        recipe().check(graph_hash="c" * 64, samples_digest="b" * 64)
    with pytest.raises(ArtefactError, match="recipe is for calibration data bbbbbbbbbbbb, found c"):
        recipe().check(graph_hash="a" * 64, samples_digest="c" * 64)


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe .*none\.yaml does not exist"):
        Recipe.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("improvement_samples", -1),
        ("unsigned", 1),
        ("weights", "int4"),
        ("attention", "none"),
        ("fitted_without", [3]),
    ],
)
def test_values_of_other_types_are_refused(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "r.yaml"
    Recipe(
        graph_hash="a" * 64,
        profile="cpu",
        calibrator="mse",
        methods=None,
        fitted_without=("n",),
        samples_digest="b" * 64,
    ).save(path)
    assert Recipe.load(path).fitted_without == ("n",)
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**content, field: value}))
    with pytest.raises(ArtefactError, match=field):
        Recipe.load(path)
