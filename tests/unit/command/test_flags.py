from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from artefacts.errors import InputError
from engines import Profile
from pipeline.flag_values import parse_pools, parse_shapes
from pipeline.flags import parse_job
from pipeline.job import Job
from pipeline.settings import settings_of


def job(*extra: str) -> Job:
    return parse_job(["--onnx", "m.onnx", "--engine", "out/v1.2.int8.engine", *extra])


def test_shapes_are_trtexecs_and_names_may_hold_colons() -> None:
    assert parse_shapes("image:0:1x3x8x8,mask:4") == {"image:0": (1, 3, 8, 8), "mask": (4,)}


@pytest.mark.parametrize("text", ["image", "1x3", "a:1xx3", ":1x2", "a:1x-2", "", "a:1,b"])
def test_other_shapes_are_refused_by_part(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not of the form name:1x3x224x224"):
        parse_shapes(text)


def test_pools_may_be_parts_of_a_mib() -> None:
    assert parse_pools("workspace:1024,dlaSRAM:0.5") == {"workspace": 1024.0, "dlaSRAM": 0.5}
    assert job("--memPoolSize=dlaSRAM:0.25").build.options.memory_pools_mib == {"dlaSRAM": 0.25}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workspace", "'workspace' is not of the form POOL:MiB"),
        (":1", "':1' is not of the form POOL:MiB"),
        ("dlaSRAM:1,workspace:", "'workspace:' is not of the form POOL:MiB"),
        ("dlaSRAM:half", "'half' is not a number of at least 0"),
        ("dlaSRAM:-1", "'-1' is not a number of at least 0"),
        ("dlaSRAM:nan", "'nan' is not a number of at least 0"),
        ("dlaSRAM:inf", "'inf' is not a number of at least 0"),
    ],
)
def test_other_pools_are_refused(text: str, said: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=said):
        parse_pools(text)


def test_artefacts_lie_beside_the_engine_without_its_precision() -> None:
    assert job().paths.beside(".ranges.json") == Path("out/v1.2.ranges.json")


def test_exclusions_add_up() -> None:
    assert job("--exclude", "Conv_0", "--exclude", "/head/").quantize.exclude == (
        "Conv_0",
        "/head/",
    )


def test_a_model_that_would_be_overwritten_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "m.int8.onnx"
    with pytest.raises(InputError, match=r"--engine .*m\.engine would overwrite the model"):
        parse_job(["--onnx", str(model), "--engine", str(tmp_path / "m.engine")])


def test_stop_after_needs_int8() -> None:
    with pytest.raises(InputError, match="--stop-after is onnx with --precision fp32"):
        job("--precision", "fp32", "--stop-after", "onnx")


@pytest.mark.parametrize("flags", [("--calib-num", "0"), ("--target", "gpu"), ("--bogus",)])
def test_bad_flags_exit_with_2(flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        job(*flags)
    assert left.value.code == 2
    assert flags[0] in capsys.readouterr().err


def test_profiles_add_up() -> None:
    found = job(
        *("--minShapes", "x:1x4", "--optShapes", "x:2x4", "--maxShapes", "x:8x4"),
        *("--minShapes", "x:16x4", "--optShapes", "x:32x4", "--maxShapes", "x:32x4"),
    )
    assert found.build.options.profiles == (
        Profile(min={"x": (1, 4)}, opt={"x": (2, 4)}, max={"x": (8, 4)}),
        Profile(min={"x": (16, 4)}, opt={"x": (32, 4)}, max={"x": (32, 4)}),
    )


def test_a_profile_lacks_a_shape() -> None:
    with pytest.raises(InputError, match=r"given 2, 1 and 0 times, expected equally often"):
        job("--minShapes", "x:1", "--minShapes", "x:2", "--optShapes", "x:4")


@pytest.mark.parametrize(
    ("given", "samples", "effort"),
    [
        ("fast", None, "fast"),
        ("default", None, "default"),
        ("thorough", None, "thorough"),
        ("9", 9, "default"),
    ],
)
def test_the_improvement_takes_a_word_or_a_number(
    given: str, samples: int | None, effort: str
) -> None:
    found = job("--improve", given)
    assert (found.quantize.improvement_samples, found.quantize.effort) == (samples, effort)
    assert settings_of(found)["improve"] == (effort if samples is None else samples)


@pytest.mark.parametrize("given", ["fastest", "-1", "4.5", ""])
def test_another_word_of_the_improvement_is_refused(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        job(f"--improve={given}")
    assert f"{given!r} is neither one of fast, default, thorough nor a" in capsys.readouterr().err


def test_a_named_calibrator_switches_the_improvement_off_and_says_so() -> None:
    named, both = job("--calibrator", "entropy"), job("--calibrator", "entropy", "--improve", "9")
    said = "improvement off: --calibrator entropy is named; --improve default switches it on"
    assert (named.quantize.improvement_samples, named.quantize.not_improved) == (0, said)
    assert (both.quantize.improvement_samples, both.quantize.not_improved) == (9, "")
    for flags in ((), ("--improve", "0")):
        assert job(*flags).quantize.not_improved == ""


CALIBRATED = ("--calib-data", "c/")
LABELLED = (*CALIBRATED, "--eval-data", "e/")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--max-drop", "1"), "--max-drop without --eval-data has no labels"),
        ((*LABELLED, "--max-drop", "1", "--precision", "fp32"), "--max-drop with --precision fp32"),
        (
            (*LABELLED, "--max-drop", "1", "--min-sqnr", "9"),
            "--max-drop and --min-sqnr, expected o",
        ),
        (("--min-sqnr", "9", "--statistics", "s.npz"), "--min-sqnr with --statistics alone"),
        ((*CALIBRATED, "--min-sqnr", "9", "--implicit"), "--min-sqnr with --implicit or --calib"),
        ((*CALIBRATED, "--min-agreement", "0.9", "--shard", "1/2"), "--min-agreement with --shard"),
        (("--min-sqnr", "9", "--random-calibration", "4"), "--min-sqnr with --random-calibration"),
        ((*CALIBRATED, "--min-sqnr", "9", "--stop-after", "ranges"), "with --stop-after ranges"),
        (("--search-time", "9"), "--search-time without a promise"),
        (("--recipe", "r.yaml", "--calibrator", "mse"), "--recipe with --calibrator, expected the"),
        (("--recipe", "r.yaml", "--exclude", "Conv"), "--recipe with --exclude, expected the"),
        (("--recipe", "r.yaml", "--precision", "fp16"), "--recipe with --precision fp16"),
    ],
)
def test_promises_that_cannot_be_kept_are_refused(flags: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        job(*flags)


@pytest.mark.parametrize(
    ("text", "share"), [("99%", 0.99), ("0.99", 0.99), ("1", 1.0), ("2%", 0.02)]
)
def test_agreement_is_a_share_or_percent(text: str, share: float) -> None:
    promise = job(*CALIBRATED, "--min-agreement", text).quantize.promise
    assert promise is not None
    assert promise.minimum == pytest.approx(100 * share)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--min-agreement", "99"),
        ("--max-drop", "-1"),
        ("--max-drop", "nan"),
        ("--search-time", "0"),
    ],
)
def test_amounts_out_of_range_exit_with_2(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        job(*LABELLED, f"{flag}={value}")
    assert left.value.code == 2
    assert repr(value) in capsys.readouterr().err


def test_calibration_samples_are_held_out_only_without_others() -> None:
    assert job(*CALIBRATED, "--min-sqnr", "20").data.holds_out
    assert not job(*LABELLED, "--min-sqnr", "20").data.holds_out
    assert not job(*CALIBRATED).data.holds_out
    assert str(job(*LABELLED, "--max-drop", "1").quantize.promise) == "--max-drop 1"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--builderOptimizationLevel", "9"), "optimization_level is 9, expected 0 to 5"),
        (("--calib", "m.cache", "--precision", "fp16"), "precision is fp16 with a calibrator or"),
    ],
)
def test_what_no_builder_makes_sense_of_is_refused_at_once(
    flags: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        job(*flags)


@pytest.mark.parametrize("flag", ["--onnx", "--calib-data", "--eval-data", "--preprocess"])
def test_addresses_are_no_files(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        job(flag, "https://example.org/a.zip")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"argument {flag}: https://example.org/a.zip is an address, expected a file" in said
