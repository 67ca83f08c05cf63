"""What the example draws: mAP per epoch, and boxes on test pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from PIL import Image, ImageDraw
from scenes import SIZE, render

import calibrators
import engines
from benchmarks.accuracy import DetectionTask


def plot(results: dict[str, Any], path: Path) -> None:
    """MAP per epoch: FP32 first, then INT8 from there; PTQ as levels."""
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 5), constrained_layout=True)
    history = results["history"]
    first = len(history["fp32"])
    axis.plot(range(1, first + 1), history["fp32"], color="0.35", label="FP32")
    tuned = [results["ptq"]["mse"], *history["qat"]]
    after = range(first, first + len(tuned))
    axis.plot(after, tuned, color="tab:green", marker="o", markersize=3, label="INT8, QAT")
    axis.hlines(results["fp32"], first, after[-1], color="0.35", linestyle="--", linewidth=1)
    colors = ("tab:red", "tab:orange", "tab:purple")
    for (method, level), color in zip(results["ptq"].items(), colors, strict=True):
        label = f"INT8, PTQ {method}: {level:.3f}"
        axis.axhline(level, color=color, linewidth=1, linestyle=":", label=label)
    axis.axvline(first, color="0.8", linewidth=1)
    axis.set(xlabel="epoch", ylabel="mAP@[.5:.95] on the test pictures", ylim=(0, None))
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=2, fontsize=8)
    figure.savefig(path, dpi=110)


def draw_detections(
    engine: engines.Engine, task: DetectionTask, samples: calibrators.Samples, out: Path
) -> None:
    """Test pictures with the boxes of the engine (green) and the truth (white)."""
    truth = json.loads((out / "test.json").read_text())["annotations"]
    zoom, columns = 2, 6
    side = SIZE * zoom
    sheet = Image.new("RGB", (columns * side, -(-len(samples) // columns) * side))
    for place, sample in enumerate(samples):
        index = int(Path(sample.name).stem)
        picture = render("test", index)[0].resize((side, side))
        pen = ImageDraw.Draw(picture)
        for x, y, width, height in (a["bbox"] for a in truth if a["image_id"] == index):
            pen.rectangle([zoom * v for v in (x, y, x + width, y + height)], outline="white")
        found = task.detect(engine(sample.inputs), sample)
        for box, score in zip(found.boxes, found.scores, strict=True):
            if score > 0.4:
                pen.rectangle([zoom * v for v in box], outline=(0, 255, 0), width=2)
        sheet.paste(picture, (place % columns * side, place // columns * side))
    sheet.save(out / "detections.png")
