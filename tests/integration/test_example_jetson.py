"""examples/06_jetson: what runs anywhere runs here; what needs the device has only known flags."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from benchmarks.arguments import parse_arguments
from calibrators.tensorrt.cache import read_cache
from pipeline.flags import parse_job

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "examples" / "06_jetson" / "README.md").read_text()
BUILD, MEASURE = "build_engine.py ", "-m benchmarks "


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The words of each line, continued lines joined, comments dropped."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def check_flags(words: list[str]) -> bool:
    """Whether a command is one of ours; its flags and their values are then parsed."""
    line = shlex.join(words)
    if BUILD in line:
        parse_job(words[words.index("build_engine.py") + 1 :])
    elif MEASURE in line:
        parse_arguments(words[words.index("benchmarks") + 1 :])
    elif "int8" in words and words[:2] == ["docker", "run"]:
        parse_job(words[words.index("int8") + 1 :])
    return BUILD in line or MEASURE in line or words[:2] == ["docker", "run"]


def test_the_first_block_runs_without_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "out").mkdir()
    (text,) = blocks("bash")
    done = ""
    for words in commands(text):
        program = [sys.executable if word == "python" else word for word in words]
        program = [str(ROOT / word) if word == "build_engine.py" else word for word in program]
        if "--improve" in program:
            program += ["--calib-num", "16"]
        run = subprocess.run(
            program,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        done += run.stdout
    (expected,) = [text for text in blocks("text") if "layers read INT8" in text]
    for line in expected.splitlines():
        assert line in done
    with tarfile.open(tmp_path / "out" / "jetson.tar") as files:
        assert "jetson.int8.onnx" in files.getnames()
        caches = [files.extractfile(n) for n in files.getnames() if n.endswith(".cache")]
        read = [read_cache(cache.read()) for cache in caches if cache]
    # The same scales for both releases, under different headers.
    assert read[0].scales == read[1].scales


def test_every_flag_for_the_device_is_known() -> None:
    found = [check_flags(words) for text in blocks("text") for words in commands(text)]
    assert found.count(True) == 3


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_jetson_bench_has_only_known_flags() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "jetson-bench"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    words = commands(shown.stdout)
    assert all(check_flags(each) for each in words)
    assert [each[each.index("--precision") + 1] for each in words[:-1]] == ["fp32", "fp16", "int8"]
    built = [each[each.index("--engine") + 1] for each in words[:-1]]
    assert words[-1][words[-1].index("benchmarks") + 1 :][:3] == built


def test_the_page_says_that_nothing_ran_on_a_jetson() -> None:
    assert "None of the commands for the device has been run on a Jetson" in PAGE
    deployment = (ROOT / "docs" / "deployment.md").read_text()
    for base in re.findall(r"BASE=nvcr\.io/nvidia/(\S+)", PAGE):
        assert f"`{base}`" in deployment
