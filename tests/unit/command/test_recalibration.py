"""What a recalibration is asked for, which ranges moved, and what is decided by which figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artefacts.errors import InputError
from benchmarks.statistics import Interval, McNemar
from calibrators.ranges.ranges import Range, Ranges
from engines import FloatLayer, Manifest, Passport, PlacementRecord
from pipeline.flags import parser
from pipeline.keywords import job_of
from pipeline.paths import Paths
from pipeline.recalibration.asked import Asked
from pipeline.recalibration.comparison import Compared
from pipeline.recalibration.decision import KEEP, TAKE, UNTOLD, Decision, decide, facts_of
from pipeline.recalibration.moves import Move, moves
from pipeline.recalibration.original import Original, output_of
from pipeline.settings import flags_of, settings_of
from quantization.improve.methods import EFFORTS
from tests.networks import lstm
from tests.unit.engines.test_manifest import manifest

HASH = "0a" * 32


def ranges(**amax: float) -> Ranges:
    return Ranges(
        graph_hash=HASH,
        statistics_digest=HASH,
        method="mse",
        tensors={name: Range(amax=value, method="mse") for name, value in amax.items()},
        samples=1,
        preprocess=None,
    )


def compared(
    gain: float, low: float, high: float, split: tuple[int, int] | None = None, samples: int = 100
) -> Compared:
    p_value = 1.0 if split is None else 0.001 if abs(split[0] - split[1]) > 10 else 0.5
    mcnemar = None
    if split is not None:
        mcnemar = McNemar(only_first=split[0], only_second=split[1], p_value=p_value)
    return Compared(
        metric="top1",
        unit="points",
        before=90.0,
        after=90.0 + gain,
        gain=gain,
        interval=Interval(low=low, high=high),
        mcnemar=mcnemar,
        samples=samples,
        source="labelled/",
    )


def original(engine: Path) -> Original:
    return Original(
        engine=engine, manifest=manifest(), prepared=lstm(), prepared_path=engine.with_suffix(".p")
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no new data, expected --calib-data with the folder that a recorder filled"),
        (
            {"statistics": Path("s"), "task": Path("t.yaml")},
            r"--task t\.yaml without --eval-data, expected labelled samples",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Path], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Asked(engine=Path("m.engine"), **given)


def test_ranges_are_sorted_by_how_far_they_moved() -> None:
    found = moves(ranges(a=1.0, b=2.0, c=4.0, old=1.0), ranges(a=1.005, b=8.0, c=0.5, new=1.0))
    assert [(move.tensor, move.ratio) for move in found] == [("c", 0.125), ("b", 4.0), ("a", 1.005)]
    assert [move.notable for move in found] == [True, True, False]


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_a_range_moves_as_far_back_as_it_moved(before: float, after: float) -> None:
    there = Move(tensor="x", before=before, after=after)
    back = Move(tensor="x", before=after, after=before)
    assert there.distance == pytest.approx(back.distance)


@pytest.mark.parametrize(
    ("found", "verdict", "said"),
    [
        (compared(2.0, 0.5, 3.5), TAKE, r"better: top1 90 → 92 %, \+2 points \[0\.5, 3\.5\]"),
        (compared(-2.0, -3.5, -0.5), KEEP, "the new engine is worse: top1 90 → 88 %"),
        (compared(1.0, -1.0, 3.0), UNTOLD, r"with about \d+ samples: top1"),
        (compared(2.0, 0.5, 3.5, samples=9), UNTOLD, "told with about 11 samples"),
        (compared(0.0, 0.0, 0.0, samples=9), UNTOLD, "fewer than 10 samples tell nothing"),
        # The exact test decides, not the interval.
        (compared(30.0, -1.0, 31.0, (1, 31)), TAKE, "31 right by the new one alone, 1 by the old"),
        (compared(-30.0, -31.0, 1.0, (31, 1)), KEEP, "worse: top1"),
        (compared(1.0, 0.5, 2.0, (2, 3)), UNTOLD, r"told with about [\d,]+ samples"),
        (compared(0.0, -1.0, 1.0, (3, 3)), UNTOLD, "no number of samples tells apart"),
        (compared(0.0, 0.0, 0.0, (0, 0)), UNTOLD, "both engines did equally well"),
    ],
)
def test_the_figures_decide(found: Compared, verdict: str, said: str) -> None:
    decided, why = decide(found, "", gap=())
    assert decided == verdict
    assert re.search(said, why), why


def test_an_engine_that_differs_from_its_graph_is_kept_out() -> None:
    verdict, why = decide(compared(9.0, 8.0, 10.0), "", gap=["output y is 3.0 dB from it"])
    assert verdict == KEEP
    assert "something else than its graph: output y is 3.0 dB from it" in why
    assert decide(None, "no GPU", gap=()) == (UNTOLD, "the engines were not compared: no GPU")


@pytest.mark.parametrize("signed", [True, False])
def test_a_decision_is_written_for_people_and_programs(tmp_path: Path, signed: bool) -> None:
    paths = Paths(onnx=Path("x.onnx"), engine=tmp_path / "m.v2.engine")
    old = facts_of(tmp_path / "m.engine", manifest(), signed=signed)
    decision = Decision(
        verdict=TAKE,
        why="the new engine is better",
        old=old,
        new=facts_of(paths.engine, manifest(passport=Passport(samples=5)), signed=False, version=2),
        how="merged",
        source="samples/\x1b[2J",
        new_samples=3,
        compared=compared(2.0, 0.5, 3.5),
        moves=(Move(tensor="conv", before=1.0, after=4.0),),
        notes=("neither was measured elsewhere",),
    )
    page, record = decision.write(paths)
    text = page.read_text()
    assert text.startswith("# Recalibration: take the new one\n\nThe new engine is better.\n")
    assert "\x1b" not in text
    assert re.search(r"conv +1 +4 +4\n", text)
    assert "- Neither was measured elsewhere." in text
    assert f"pool.replace('{paths.engine}')" in text
    assert ("int8 sign" in text) == signed
    data = json.loads(record.read_text())
    assert (data["verdict"], data["compared"]["gain"], data["moves"][0]["ratio"]) == (TAKE, 2.0, 4)
    assert data["new"]["version"] == 2


@pytest.mark.parametrize(
    ("engine", "output"),
    [("m.int8.engine", "m.v2.engine"), ("m.v1.engine", "m.v2.engine"), ("m.plan", "m.v2.plan")],
)
def test_the_new_engine_has_a_name_of_its_own(tmp_path: Path, engine: str, output: str) -> None:
    asked = Asked(engine=tmp_path / engine, statistics=Path("s"))
    assert output_of(asked, original(tmp_path / engine)) == tmp_path / output
    (tmp_path / output).touch()
    with pytest.raises(InputError, match=rf"{output} is there already, perhaps in service"):
        output_of(asked, original(tmp_path / engine))
    forced = Asked(engine=tmp_path / engine, statistics=Path("s"), force=True)
    assert output_of(forced, original(tmp_path / engine)) == tmp_path / output


@pytest.mark.parametrize("output", ["m.int8.engine", "m.engine", "m.plan", "x/../m.fp16.engine"])
def test_the_files_of_the_old_engine_are_never_replaced(tmp_path: Path, output: str) -> None:
    (tmp_path / "x").mkdir()
    engine = tmp_path / "m.int8.engine"
    asked = Asked(engine=engine, statistics=Path("s"), output=tmp_path / output, force=True)
    with pytest.raises(InputError, match="expected a name of its own"):
        output_of(asked, original(engine))


def test_random_samples_are_no_data_to_add_to(tmp_path: Path) -> None:
    found = manifest(passport=Passport(settings={"random_calibration": 8}))
    engine = tmp_path / "m.engine"
    made = Original(engine=engine, manifest=found, prepared=lstm(), prepared_path=engine)
    with pytest.raises(InputError, match=r"8 random samples, .*--replace"):
        made.check_mergeable()


def test_settings_of_a_build_come_back_as_its_flags(tmp_path: Path) -> None:
    options = {
        "calibrator": "percentile:99.9",
        "improve": 7,
        "exclude": ["/head/", "Conv_1"],
        "attention": "float",
        "weights": "float",
        "cpu_unsigned": True,
        "cpu_isa": "portable",
        "simulate_target": "tensorrt",
        "calib_batch": 3,
        "batch_axis": {"x": 1},
        "require_int8": 0.25,
        "target": "cpu",
        "threads": 2,
        "no_tf32": True,
        "minShapes": "x:1x3",
        "optShapes": "x:2x3",
        "maxShapes": "x:4x3",
    }
    with job_of("m.onnx", tmp_path / "a.engine", options) as first:
        built = manifest(
            options=first.build.options.to_json(),
            profiles=first.build.options.profiles,
            passport=Passport(calibrator="percentile:99.9", settings=settings_of(first)),
        )
    with job_of("m.onnx", tmp_path / "a.engine", flags_of(built)) as again:
        assert again == first


def _words() -> Iterator[tuple[str, Any]]:
    """Each word that a flag which decides on INT8 takes."""
    with job_of("m.onnx", "a.engine", {}) as job:
        kept = settings_of(job)
    for action in parser()._actions:
        words = EFFORTS if action.dest == "improve" else action.choices or ()
        yield from ((action.dest, word) for word in words if action.dest in kept)


@pytest.mark.parametrize(("flag", "word"), list(_words()))
def test_every_word_of_a_flag_is_one_that_a_manifest_takes(
    flag: str, word: str, tmp_path: Path
) -> None:
    """``--improve thorough`` ended in the last step, of a schema that knew numbers alone."""
    with job_of("m.onnx", tmp_path / "a.engine", {flag: word}) as first:
        passport = Passport(calibrator=first.calibrate.method, settings=settings_of(first))
    found = Manifest.from_bytes(manifest(passport=passport).to_bytes())
    with job_of("m.onnx", tmp_path / "a.engine", flags_of(found)) as again:
        assert again.quantize == first.quantize
    assert flags_of(found)[flag] == word


def test_an_engine_without_settings_is_described_by_its_manifest() -> None:
    floating = [
        FloatLayer(node="a", op_type="Conv", rule="excluded", why="excluded by the user"),
        FloatLayer(node="b", op_type="Conv", rule="search", why="of a promise"),
        FloatLayer(node="c", op_type="Conv", rule="first_layer", why="another rule"),
    ]
    placement = PlacementRecord(
        profile="tensorrt", int8_layers=(), int8_mac_share=0.5, floating=tuple(floating)
    )
    passport = Passport(calibrator="mse", improvement_samples=12, placement=placement)
    flags = flags_of(manifest(passport=passport, options={"tf32": False, "dla_core": 0}))
    assert flags["exclude"] == ["a", "b"]
    assert (flags["calibrator"], flags["improve"], flags["no_tf32"]) == ("mse", 12, True)
    assert (flags["simulate_target"], flags["dla_core"]) == ("tensorrt", 0)
    assert flags["maxShapes"] == [{"x": (4, 3)}]


def test_flags_that_write_files_are_not_taken_from_a_manifest() -> None:
    settings = {"calib_cache": "/etc/passwd", "sign": "k.pem", "weights": "int8"}
    flags = flags_of(manifest(passport=Passport(settings=settings)))
    assert flags["weights"] == "int8"
    assert not {"calib_cache", "sign", "timing_cache", "calib", "save_outputs"} & flags.keys()


def test_a_gain_is_said_with_its_interval() -> None:
    assert str(compared(2.0, 0.5, 3.5, samples=1200)).endswith("[0.5, 3.5] on 1,200 samples")
    level = Compared(
        metric="SQNR against FP32",
        unit="dB",
        before=20.0,
        after=31.5,
        gain=11.5,
        interval=Interval(low=10.0, high=np.float64(13.0)),
        mcnemar=None,
        samples=40,
        source="samples/",
    )
    assert str(level) == "SQNR against FP32 20 → 31.5 dB, +11.5 dB [10, 13] on 40 samples"
    assert level.verdict == "better"
