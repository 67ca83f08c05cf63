"""trtexec's flags: ours where they mean one thing, else an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from artefacts.errors import InputError
from pipeline.flags import parse_job, parser
from pipeline.trtexec import ANSWERS, SAME, from_trtexec


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (["--saveEngine=m.engine"], ["--engine", "m.engine"]),
        (["--saveEngine", "m.engine"], ["--engine", "m.engine"]),
        (["--int8"], ["--precision", "int8"]),
        (["--best"], ["--precision", "int8"]),
        (["--fp16"], ["--precision", "fp16"]),
        (["--int8", "--fp16"], ["--precision", "int8", "--float-part", "fp16"]),
        (["--shapes=x:1x3"], ["--optShapes", "x:1x3"]),
        (["--onnx=m.onnx", "--buildOnly"], ["--onnx=m.onnx"]),
        (["--calib=c.cache", "--noTF32"], ["--calib=c.cache", "--noTF32"]),
        (["--batch-axis", "data=0"], ["--batch-axis", "data=0"]),
    ],
)
def test_what_means_one_thing_is_taken(theirs: list[str], ours: list[str]) -> None:
    assert from_trtexec(theirs) == ours


def test_a_line_of_trtexec_is_a_job() -> None:
    job = parse_job(["--onnx=m.onnx", "--saveEngine=o/m.engine", "--fp16", "--shapes=x:4x3"])
    assert job.paths.engine == Path("o/m.engine")
    assert job.build.precision == "fp16"
    assert job.build.options.profiles[0].max == {"x": (4, 3)}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--loadEngine=m.engine"], r"--loadEngine=m.engine is no flag .* int8 bench"),
        (["--iterations=10"], "measure with int8 bench"),
        (["--fp8"], "expected --precision fp32, fp16 or int8"),
        (["--layerPrecisions=a:fp16"], "--exclude NAME"),
        (["data=coco.yaml"], "--calib-data"),
        (["model=yolo.pt", "imgsz=640"], "--onnx model.onnx"),
    ],
)
def test_what_does_not_is_answered(words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_trtexec(words)


def test_no_flag_of_ours_is_shadowed_and_what_is_advised_exists() -> None:
    ours = parser()._option_string_actions
    assert not ours.keys() & (SAME.keys() | ANSWERS.keys())
    words = " ".join([*ANSWERS.values(), *(word for words in SAME.values() for word in words)])
    advised = {word.strip(".,;:") for word in words.split() if word.startswith("--")}
    assert advised - ours.keys() == {"--data"}  # of int8 bench
