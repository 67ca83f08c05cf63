"""What ``--max-drop 0.5`` leaves in float on a network, by the command itself."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

import engines
from benchmarks.peers.accuracy_cases import Case

__all__ = ["kept_promise", "promise_table"]

ROOT = Path(__file__).parents[2]
DROP = 0.5


def kept_promise(case: Case, assets: Path, folder: Path) -> dict[str, Any]:
    """Run the command with TensorRT's placement; half of the evaluation samples choose."""
    engine = folder / f"{case.file}.kept" / "m.int8.engine"
    engine.parent.mkdir(exist_ok=True)
    spec, task = engine.parent / "preprocess.yaml", engine.parent / "task.yaml"
    spec.write_text(yaml.safe_dump(case.preprocess))
    described: dict[str, Any] = {"task": "classification", "label_offset": case.label_offset}
    if case.annotations:
        described = {"task": "detection", "annotations": str((assets / case.annotations).resolve())}
    task.write_text(yaml.safe_dump(described))
    words: list[object] = [sys.executable, "build_engine.py", "--target", "cpu"]
    words += ["--simulate-target", "tensorrt", "--max-drop", DROP, "--engine", engine]
    words += ["--onnx", assets / "models" / f"{case.file}.onnx"]
    if case.preprocess:
        words += ["--preprocess", spec]
    words += ["--calib-data", case.rows(assets, "calibration", folder)]
    words += ["--calib-num", case.calibration[1].stop, "--task", task]
    words += ["--eval-data", case.rows(assets, "evaluation", folder)]
    start = time.perf_counter()
    done = subprocess.run(
        [str(word) for word in words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    (engine.parent / "output.txt").write_text(done.stdout + done.stderr)
    if done.returncode not in (0, 1) or not engine.exists():
        print(f"  --max-drop failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return {}
    manifest = engines.read_manifest(engine)
    passport = manifest.passport.to_json()
    return {
        **manifest.measured["promise"],
        "exit": done.returncode,
        "how": passport["promise"]["how"],
        "int8_mac_share": passport["placement"]["int8_mac_share"],
        "seconds": time.perf_counter() - start,
    }


def promise_table(found: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown rows."""
    lines = [
        f"| network | drop with --max-drop {DROP}, points | 95 % | kept | MACs in INT8 % | how |",
        "|---|--:|---|---|--:|---|",
    ]
    for name, entry in found.items():
        if entry:
            low, high = (0.0 - end for end in reversed(entry["interval"]))
            lines.append(
                f"| {name} | {0.0 - entry['score']:.2f} | {low:.2f} to {high:.2f} "
                f"| {'yes' if entry['exit'] == 0 else 'no'} "
                f"| {100 * entry['int8_mac_share']:.1f} | {entry['how']} |"
            )
    return lines
