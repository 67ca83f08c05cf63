"""The typed passport against the schema of the manifest, and against files of other releases."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from engines import (
    FloatLayer,
    FloatOperator,
    InputSummary,
    Passport,
    PlacementRecord,
    PromiseRecord,
    RecipeRecord,
    VersionRecord,
)
from engines.manifest import Manifest
from engines.monitoring.distance import Distances
from engines.monitoring.grid import Grid
from tests.unit.engines.test_manifest import manifest

HASH = "0a" * 32
WHOLE = Passport(
    graph_hash=HASH,
    ranges_sha256=HASH,
    statistics_sha256=HASH,
    preprocess={"size": [8, 8]},
    labels=("eins", "zwei"),
    calibrator="mse",
    samples=2,
    calibration_samples=("a", "b"),
    inputs=(
        InputSummary(
            name="x",
            samples=20,
            min=-1.0,
            max=1.5,
            grid=Grid(channel_axis=None, channels=1, width_exponent=-2, first=-4),
            shares=(0.25,) * 4 + (0.0,) * 8 + (1.0,) + (0.0,) * 11,
            limits=Distances(saturation=0.1, psi=0.2, ks=0.3, step_psi=0.4, colour_ks=0.5),
        ),
    ),
    improved_graph_hash=HASH,
    improvement_samples=2,
    placement=PlacementRecord(
        profile="cpu",
        int8_layers=("conv",),
        int8_mac_share=0.5,
        floating=(FloatLayer(node="head", op_type="Gemm", rule="search", why="it is asked for"),),
        shapes={"x": (1, 128)},
    ),
    sample_axes={"axes": {"x": 0}, "apart": True},
    float32_operators=(FloatOperator(node="exp", op_type="Exp", why="overflows"),),
    recipe=RecipeRecord(released=("head",), found={"score": 21.5}),
    promise=PromiseRecord(
        flag="--min-sqnr 20",
        kept_on_selection=True,
        how="1 of 2 groups are left in float",
        selection_samples=8,
        released=("head",),
        cost=0.5,
        cost_unit="ms",
        calibrator="mse",
    ),
    release={"name": "person", "version": "3", "expires": "2030-01-31"},
    settings={
        "calibrator": "mse",
        "improve": 48,
        "exclude": ["head"],
        "attention": "int8",
        "weights": "int8",
        "cpu_unsigned": False,
        "cpu_isa": "auto",
        "simulate_target": None,
        "float_part": None,
        "calib_batch": 8,
        "batch_axis": {"x": 0},
        "whole_samples": False,
        "require_int8": 0.5,
        "random_calibration": None,
    },
    history=(
        VersionRecord(
            version=1,
            engine_sha256=HASH,
            created="2026-01-01T00:00:00Z",
            came_from=None,
            how="built",
            samples=2,
            samples_sha256=HASH,
            statistics_sha256=HASH,
            ranges_sha256=HASH,
            verdict=None,
        ),
        VersionRecord(
            version=2,
            engine_sha256="0b" * 32,
            created="2026-02-01T00:00:00Z",
            came_from=HASH,
            how="merged",
            samples=4,
            samples_sha256=HASH,
            statistics_sha256=HASH,
            ranges_sha256=HASH,
            verdict="take the new one",
        ),
    ),
)


def schema() -> dict[str, Any]:
    text = resources.files("engines").joinpath("manifest.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def fields_of(kind: type) -> set[str]:
    return {entry.name for entry in dataclasses.fields(kind)}


def test_schema_and_records_have_the_same_fields() -> None:
    known = schema()["properties"]["passport"]["properties"]
    assert set(known) == fields_of(Passport) - {"more"}
    assert set(known["placement"]["properties"]) == fields_of(PlacementRecord)
    floating = known["placement"]["properties"]["floating"]["items"]
    assert set(floating["properties"]) == fields_of(FloatLayer)
    assert set(known["float32_operators"]["items"]["properties"]) == fields_of(FloatOperator)
    assert set(known["recipe"]["properties"]) == fields_of(RecipeRecord)
    assert set(known["promise"]["properties"]) == fields_of(PromiseRecord)
    assert set(known["history"]["items"]["properties"]) == fields_of(VersionRecord)


def test_everything_round_trips_by_the_file() -> None:
    assert all(value for name, value in vars(WHOLE).items() if name != "more")
    assert Manifest.from_bytes(manifest(passport=WHOLE).to_bytes()).passport == WHOLE


@pytest.mark.parametrize("name", sorted(fields_of(Passport) - {"more"}))
def test_the_schema_refuses_what_no_field_holds(name: str) -> None:
    whole, part = schema(), WHOLE.to_json()
    validator = Draft202012Validator({**whole["properties"]["passport"], "$defs": whole["$defs"]})
    assert not list(validator.iter_errors(part))
    assert list(validator.iter_errors({**part, name: 0.5}))


def test_a_calibrated_engine_says_what_it_has_not() -> None:
    calibrated = Passport(ranges_sha256=HASH)
    assert calibrated.to_json() == {"ranges_sha256": HASH, "preprocess": None, "labels": None}
    assert Passport().to_json() == {}


def test_what_another_release_wrote_stays() -> None:
    written = {"placement": {"profile": "cpu"}, "samples": 3, "note": {"by": "hand"}}
    found = Passport.from_json(written)
    assert (found.samples, found.placement) == (3, None)
    assert found.to_json() == written
