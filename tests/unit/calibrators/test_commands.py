"""python -m calibrators: files in, files and sentences out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from artefacts.files import sha256_bytes
from calibrators.__main__ import main
from calibrators.ranges.auto import choose_per_tensor
from calibrators.ranges.methods import METHODS, compute_ranges
from calibrators.ranges.ranges import READER_ERROR_CENTRED, Ranges
from calibrators.statistics.statistics import Statistics, TensorStatistics
from calibrators.tensorrt.cache import read_cache


@pytest.fixture
def shards(tmp_path: Path, rng: np.random.Generator) -> list[Path]:
    paths = [tmp_path / f"{name}.stats.npz" for name in ("a", "b")]
    for path in paths:
        tensors = {
            "conv: out": TensorStatistics.of(rng.standard_t(3, 5000)),
            "dead": TensorStatistics.of(np.zeros(3)),
        }
        Statistics(
            graph_hash="g" * 64,
            preprocess=None,
            samples=(sha256_bytes(path.name.encode()),),
            tensors=tensors,
        ).save(path)
    return paths


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_merge(shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "all.stats.npz"
    assert run("merge", *shards, "-o", output) == 0
    assert f"{output}: 2 samples, 2 tensors" in capsys.readouterr().out
    first, second = map(Statistics.load, shards)
    assert Statistics.load(output) == first.merge(second)
    assert run("merge", output, shards[0], "-o", tmp_path / "no.stats.npz") == 2
    assert "1 samples are in both statistics" in capsys.readouterr().err
    assert not (tmp_path / "no.stats.npz").exists()


@pytest.mark.parametrize("method", [*METHODS, "percentile:99.9"])
def test_ranges(shards: list[Path], tmp_path: Path, method: str) -> None:
    output = tmp_path / "x.ranges.json"
    assert run("ranges", shards[0], "--method", method, "-o", output) == 0
    assert Ranges.load(output) == compute_ranges(Statistics.load(shards[0]), method=method)


def test_ranges_auto(
    shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "x.ranges.json"
    words = ("ranges", shards[0], "-o", output, "--method")
    assert run(*words, "auto", "--held-out", shards[1]) == 0
    assert Ranges.load(output) == choose_per_tensor(*map(Statistics.load, shards))
    assert run(*words, "auto") == 2
    assert "1 samples do not make two halves" in capsys.readouterr().err
    assert run(*words, "mse", "--held-out", shards[1]) == 2
    assert "method mse with --held-out" in capsys.readouterr().err


def test_cache(shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranges, old, new = (tmp_path / name for name in ("x.ranges.json", "old.cache", "new.cache"))
    run("ranges", shards[0], "-o", ranges)
    assert run("cache", ranges, "--version", "8.6.1", "-o", old) == 0
    assert ", the prepared one\n" in capsys.readouterr().out
    cache = read_cache(old.read_bytes())
    assert cache.header == "TRT-8601-EntropyCalibration2"
    assert cache.scales["conv: out"] == Ranges.load(ranges)["conv: out"].scale
    capsys.readouterr()
    assert run("cache", old) == 0
    header, head, first, *_ = capsys.readouterr().out.splitlines()
    assert header == cache.header
    assert head.split() == ["tensor", "scale", "range"]
    assert first.startswith("conv: out")
    words = ("cache", old, "--version", "10.3.0", "--algorithm", "MinMaxCalibration", "-o", new)
    assert run(*words) == 2
    assert "is a calibration cache already (TRT-8601-" in capsys.readouterr().err
    assert not new.exists()
    assert run(*words, "--rewrite-header") == 0
    assert read_cache(new.read_bytes()).header == "TRT-100300-MinMaxCalibration"
    assert read_cache(new.read_bytes()).scales == cache.scales
    found = Ranges.load(ranges)
    moved = dataclasses.replace(found["conv: out"], method=READER_ERROR_CENTRED)
    found.replace({"conv: out": moved}).save(ranges)
    assert run("cache", ranges, "--version", "8.6.1", "-o", old) == 0
    said = capsys.readouterr().out
    assert f"for graph {found.graph_hash[:12]}, which was improved: give TensorRT the" in said
    assert run("cache", ranges, "-o", new) == 2
    assert "expected --version, e.g. --version 10.3.0" in capsys.readouterr().err


def test_show(shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", shards[0], "--method", "percentile:90") == 0
    title, head, first, second, settled = capsys.readouterr().out.splitlines()
    assert title == "1 sample, 2 tensors, ranges by percentile:90"
    assert head.split()[:4] == ["tensor", "largest", "range", "clipped"]
    assert first.startswith("conv: out")
    share = float(first.split()[4].removesuffix("%"))
    assert share == pytest.approx(10, abs=0.2)
    assert second.split()[-1] == "dead"
    assert "too few to tell" in settled
    ranges = tmp_path / "x.ranges.json"
    run("ranges", shards[0], "--method", "minmax", "-o", ranges)
    capsys.readouterr()
    assert run("show", shards[0], "--ranges", ranges) == 0
    assert "ranges by minmax" in capsys.readouterr().out
    assert run("show", shards[1], "--ranges", ranges) == 2
    assert "ranges were chosen from statistics " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "cache", "merge", "ranges"])
def test_missing_file_is_one_sentence(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ("-o", tmp_path / "out") if command in ("merge", "ranges") else ()
    assert run(command, tmp_path / "none", *output) == 2
    captured = capsys.readouterr()
    assert "none does not exist" in captured.err
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
