"""What calibration costs, ours and peers', beside plain forward passes: ``make bench-calibration``.

ResNet-50's shape with random weights, random images of 224 by 224. Each system runs in a process of
its own, and the forward passes run before and after, so that a machine that is busy shows.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import onnx

from benchmarks.peers.resnet50 import build_resnet50, write_images

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
PYTHONS = {
    "modelopt": ROOT / ".venv-modelopt/bin/python",
    "nncf": ROOT / ".venv-nncf/bin/python",
}
NAMES = {
    "forward-1": "plain FP32 forward, batch 1",
    "forward-8": "plain FP32 forward, batch 8",
    "ours": "ours: statistics and 4 methods",
    "onnxruntime": "onnxruntime quantize_static, entropy",
    "modelopt": "ModelOpt, entropy",
    "nncf": "NNCF, default",
}


def measure(system: str, model: Path, images: Path, count: int) -> dict[str, float] | None:
    """One run in its own process; None where the peer's environment is missing."""
    python = PYTHONS.get(system, Path(sys.executable))
    if not python.exists():
        return None
    done = subprocess.run(
        [python, FOLDER / "calibration_systems.py", system, model, images, str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT) if system == "ours" else ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    found = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"  {system} {count}: {found}", file=sys.stderr, flush=True)
    return {name: float(value) for name, value in found.items()}


def table(model: Path, images: Path, count: int, systems: list[str]) -> list[str]:
    """Markdown rows of all systems on ``count`` images."""
    plain = [measure("forward-1", model, images, count)]
    others = {system: measure(system, model, images, count) for system in systems}
    plain.append(measure("forward-1", model, images, count))
    forward = [run for run in plain if run is not None]
    mean = {key: statistics.mean(run[key] for run in forward) for key in forward[0]}
    spread = max(run["seconds"] for run in forward) / min(run["seconds"] for run in forward)
    rows = [_row("forward-1", count, mean, mean)]
    for system, run in others.items():
        missing = f"| {NAMES[system]} | {count} | not run | | | | |"
        rows.append(missing if run is None else _row(system, count, run, mean))
    mine = others.get("ours")
    if mine is not None:
        each_ms = 1000 * mine["methods_seconds"] / mine["tensors"]
        rows.append(f"\nAll four methods together take {each_ms:.1f} ms a tensor.")
    if spread > 1.1:
        rows.append(
            f"\nUnstable: the forward passes before and after differ by a factor of {spread:.2f}."
        )
    return rows


def _row(system: str, count: int, run: dict[str, float], plain: dict[str, float]) -> str:
    return (
        f"| {NAMES[system]} | {count} | {run['seconds']:.1f} "
        f"| {run['seconds'] / plain['seconds']:.2f} | {run['cpu_seconds']:.1f} "
        f"| {run['peak_mb']:.0f} | {run['peak_mb'] - plain['peak_mb']:+.0f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--many", type=int, default=1024, help="0 to leave out the flatness run")
    parser.add_argument("--systems", nargs="*", choices=NAMES, default=list(NAMES)[1:])
    parser.add_argument("--folder", type=Path, default=ROOT / "build/bench-calibration")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    model, images = arguments.folder / "resnet50.onnx", arguments.folder / "images.npy"
    onnx.save(build_resnet50(), model)
    write_images(images, max(arguments.images, arguments.many))
    print(f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}, {_machine()}")
    runs = [(arguments.images, arguments.systems)]
    if arguments.many:
        runs.append((arguments.many, ["ours"]))
    for count, systems in runs:
        print("\n| system | images | seconds | of plain | processor s | peak MB | over plain |")
        print("|---|--:|--:|--:|--:|--:|--:|")
        print("\n".join(table(model, images, count, systems)), flush=True)


def _machine() -> str:
    """Processor and cores, e.g. "Intel(R) Xeon(R) ..., 2 cores"."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return f"{name or platform.processor()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
