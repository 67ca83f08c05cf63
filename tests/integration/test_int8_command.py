"""The installed command, as its script runs it: from a folder whose files have our names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import engines
from int8 import __version__

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "01_digits"
# What pip writes for ``int8 = "int8.main:main"``; Python puts the script's folder on its path.
SCRIPT = "import sys\nfrom int8.main import main\nsys.exit(main())\n"
SHADOWS = ("command", "engines", "benchmarks", "calibrators", "pipeline", "int8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with modules that must not be taken for ours."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "int8").write_text(SCRIPT)
    (tmp_path / "work").mkdir()
    for name in SHADOWS:
        (tmp_path / "work" / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    return tmp_path / "work"


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder.parent / "bin" / "int8"), *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600
    )


def test_version_and_doctor(folder: Path) -> None:
    assert run(folder, "--version").stdout == f"int8 {__version__}\n"
    done = run(folder, "doctor")
    assert done.returncode == 0, done.stderr
    assert "\n  cpu           works" in done.stdout


def test_the_digits(folder: Path) -> None:
    """Plan, build for a program, inspect and measure."""
    flags: list[object] = [
        "build",
        "--onnx",
        DIGITS / "digits.onnx",
        "--engine",
        "out/digits.int8.engine",
    ]
    flags += ["--calib-data", DIGITS / "calib", "--preprocess", DIGITS / "preprocess.yaml"]
    flags += ["--eval-data", DIGITS / "test.npz", "--target", "cpu", "--calibrator", "minmax"]
    done = run(folder, *flags, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "[5/5] verify" in done.stdout
    assert "writes out/digits.int8.engine\n" in done.stdout
    assert not (folder / "out").exists()

    done = run(folder, *flags, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["engine"] == "out/digits.int8.engine"
    assert {Path(name) for name in told["files"]} == {
        path.relative_to(folder) for path in (folder / "out").iterdir()
    }
    assert told["accuracy"]["INT8 engine"]["top1"] > 0.95
    assert told["placement"]["int8_mac_share"] == 1.0
    assert told["error"] is None
    manifest = engines.read_manifest(folder / "out/digits.int8.engine")
    assert told["promise"] is None
    assert manifest.measured["accuracy"] == told["accuracy"]

    planned = run(folder, *flags, "--dry-run").stdout
    assert "goes on from out/digits.stats.npz where it is of the same model" in planned
    assert "replaces out/digits.int8.engine\n" in planned
    assert run(folder, "verify", "out/digits.int8.engine").stdout.endswith("fits this machine\n")
    bench: list[object] = [
        "bench",
        "out/digits.int8.engine",
        "--data",
        DIGITS / "test.npz",
        "--num",
        16,
    ]
    done = run(
        folder, *bench, "--duration", 0.1, "--warmUp", 1, "--energy", 0, "--json", "out/report.json"
    )
    assert done.returncode == 0, done.stderr
    stored = json.loads((folder / "out/report.json").read_text())
    assert stored["systems"][0]["memory"] is not None, "the probe's process took another module"
