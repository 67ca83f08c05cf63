"""A real person-and-everything detector, scored end to end from a task spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.report import load_report

PREPROCESS = """
letterbox: {size: [416, 416], pad: 114, anchor: top-left}
antialias: false
color: bgr
scale: 1
"""
TASK = """
task: detection
annotations: %s
decode: yolox
iou_threshold: 0.65
"""


def test_yolox_nano_is_measured_in_map(assets: Path, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    (tmp_path / "preprocess.yaml").write_text(PREPROCESS)
    (tmp_path / "task.yaml").write_text(TASK % (assets / "coco" / "instances_val.json"))
    model = assets / "models" / "yolox_nano.onnx"
    words = [str(model), str(model), "--data", str(assets / "coco" / "val"), "--num", "24"]
    words += ["--task", f"{tmp_path}/task.yaml", "--preprocess", f"{tmp_path}/preprocess.yaml"]
    words += ["--duration", "0.1", "--limit", "0.2", "--warmUp", "10", "--no-probe"]
    assert main([*words, "--json", f"{tmp_path}/r.json"]) == 0
    report = load_report(tmp_path / "r.json")
    first, second = (system.accuracy for system in report.systems)
    assert first is not None
    assert second is not None
    # YOLOX-Nano claims 25.8 mAP on all of val2017; 24 images scatter around it.
    assert 0.15 < first.value < 0.50
    assert first.figures["map50"] > first.value > first.figures["map_small"]
    assert first.figures == second.figures
    drop = report.comparisons[0].accuracy
    assert drop is not None
    assert (drop.drop, drop.interval.low, drop.interval.high) == (0.0, 0.0, 0.0)
    assert drop.verdict == "no difference shown"
    assert second.agreement is not None
    assert second.agreement.outputs["output"].sqnr_db is None
