"""Every stage from the shell: the files of the whole command, byte for byte."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from calibrators.__main__ import main as calibrators_main
from calibrators.samples.axes import NOTE
from quantization.__main__ import main as quantization_main
from tests.integration.command import DIGITS, run


def stages(folder: Path, *flags: str, insert: tuple[str, ...] = ()) -> None:
    """Prepare, observe, choose ranges, insert; ``flags`` say where Q/DQ goes."""
    prepared, stats, ranges = (folder / f"m.{n}" for n in ("prepared.onnx", "stats.npz", "r.json"))
    preprocess = ("--preprocess", DIGITS / "preprocess.yaml")
    done = [
        quantization_main(words("prepare", DIGITS / "digits.onnx", "--output", prepared)),
        calibrators_main(
            words("observe", prepared, "--data", DIGITS / "calib", *preprocess, *flags)
            + words("--num", 24, "-o", stats)
        ),
        calibrators_main(words("ranges", stats, "--method", "entropy", "-o", ranges)),
        quantization_main(
            words("insert", prepared, "--ranges", ranges, *flags, *insert)
            + words("--used-ranges", folder / "m.ranges.json", "--output", folder / "m.int8.onnx")
        ),
    ]
    assert done == [0, 0, 0, 0]


def words(*given: object) -> list[str]:
    return [str(each) for each in given]


def content(path: Path) -> bytes:
    """Of a file; of a model without the note of what a sample is, which takes data to find out."""
    if path.suffix != ".onnx":
        return path.read_bytes()
    model = onnx.load(path)
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != NOTE}
    onnx.helper.set_model_props(model, kept)
    return model.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("whole", "flags", "insert"),
    [
        (("--target", "tensorrt"), (), ()),
        (
            ("--target", "cpu", "--cpu-isa", "portable", "--cpu-unsigned", "--exclude", "Gemm"),
            ("--profile", "cpu", "--portable", "--exclude", "Gemm"),
            ("--unsigned",),
        ),
    ],
    ids=["tensorrt", "cpu"],
)
def test_the_files_of_the_whole_command(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    whole: tuple[str, ...],
    flags: tuple[str, ...],
    insert: tuple[str, ...],
) -> None:
    one, other = tmp_path / "whole", tmp_path / "stages"
    other.mkdir()
    code, _, err = run(
        *("--onnx", DIGITS / "digits.onnx", "--engine", one / "m.engine"),
        *("--calib-data", DIGITS / "calib", "--preprocess", DIGITS / "preprocess.yaml"),
        *("--calib-num", 24, "--calibrator", "entropy", "--stop-after", "onnx", *whole),
        capsys=capsys,
    )
    assert code == 0, err
    stages(other, *flags, insert=insert)
    said = capsys.readouterr().out
    assert "24 samples" in said
    assert "layers read INT8" in said
    made = sorted(path.name for path in one.iterdir())
    assert made == ["m.int8.onnx", "m.prepared.onnx", "m.ranges.json", "m.stats.npz"]
    for name in made:
        assert content(one / name) == content(other / name), name


def test_ranges_of_another_placement_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Observed for one profile, inserted for another that wants other tensors."""
    stages(tmp_path)
    prepared = tmp_path / "m.prepared.onnx"
    capsys.readouterr()
    flags = words("--ranges", tmp_path / "m.r.json", "--profile", "dla", "--output", tmp_path / "x")
    assert quantization_main(["insert", str(prepared), *flags]) == 2
    assert "has no range" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
