"""Real PyCUDA on a driver of host memory, with the real bindings of each TensorRT generation.

The tests are those of the folder ``inside``, run by a pytest of their own for each release, since
a process can hold one libcuda and one TensorRT. By hand:

    python -m tests.host_driver.test_host_driver 10.16.1.11 -k graphs
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.contract.bindings import ROOT, prepare
from tests.gpu import smoke

BUILT = ROOT / "build" / "host_driver"
INSIDE = Path(__file__).parent / "inside"
RELEASES = ("8.6.1", "10.3.0", "10.16.1.11", "11.4.0.106", "rtx")


def environment(release: str, folder: Path) -> dict[str, str]:
    """Under which ``import tensorrt`` and ``import pycuda`` find the release and the driver."""
    if not (BUILT / "lib" / "libcuda.so.1").is_file():
        pytest.skip(f"no driver in {BUILT}: run 'make host-driver'")
    if release == "rtx":
        pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")
        (folder / "tensorrt.py").write_text(
            "import sys, tensorrt_rtx\nsys.modules[__name__] = tensorrt_rtx\n"
        )
        found = {**os.environ, "LD_LIBRARY_PATH": "", "PYTHONPATH": f"{folder}:{ROOT}"}
    else:
        found = prepare(release, folder).environment
    return {
        **found,
        "LD_LIBRARY_PATH": f"{BUILT / 'lib'}:{found['LD_LIBRARY_PATH']}",
        "PYTHONPATH": f"{found['PYTHONPATH']}:{BUILT / 'site'}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run(release: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    files = sorted(str(path) for path in INSIDE.glob("*.py") if path.name != "conftest.py")
    plugins = ("-p", "no:cacheprovider", "-p", "no:xdist")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, *arguments, *files],
        env=environment(release, folder),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("release", RELEASES)
def test_on_real_pycuda(release: str, tmp_path: Path) -> None:
    done = run(release, tmp_path)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"


def test_the_smoke_test_sees_what_it_can(tmp_path: Path) -> None:
    """CUDA works on this driver; TensorRT has no library: that stage fails, the others go on."""
    report = tmp_path / "smoke.json"
    command = [sys.executable, "-m", "tests.gpu.smoke", str(report)]
    done = subprocess.run(
        [*command, "--only", "versions", "cuda", "fp32_static", "dla"],
        env=environment("10.16.1.11", tmp_path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    seen = json.loads(report.read_text())
    assert seen["cuda"]["outcome"] == "passed", seen["cuda"]["said"]
    assert seen["cuda"]["seen"]["total_bytes"] == 1 << 30
    assert seen["fp32_static"]["outcome"] == "failed"
    assert "TensorRT 10.16.1.11 cannot start its builder" in seen["fp32_static"]["said"]
    assert f"send back: {report}" in done.stdout
    assert list(seen) == ["versions", "cuda", "fp32_static", "dla"]


def test_a_stage_that_crashes_is_recorded(tmp_path: Path) -> None:
    crash = "import os; print('before'); os.abort()"
    seen = smoke.observe([sys.executable, "-u", "-c", crash], tmp_path / "none.json")
    assert seen["outcome"] == "crashed: SIGABRT"
    assert seen["said"].startswith("before\nFatal Python error: Aborted")
    assert seen["seen"] == {}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        outcome = run(sys.argv[1], Path(made), *sys.argv[2:])
    sys.stdout.write(outcome.stdout + outcome.stderr)
    sys.exit(outcome.returncode)
