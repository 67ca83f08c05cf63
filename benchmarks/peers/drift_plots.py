"""The plots of docs/monitoring.md: drift over requests, accuracy over a change of data and engine.

    python benchmarks/peers/drift_plots.py docs/images

Made from the shipped digits on the cpu target, in a minute; needs the extras cpu and report.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import engines
from artefacts.libraries import require
from build_engine import build
from calibrators import Preprocess
from engines.monitoring.summary import WINDOW

DIGITS = Path(__file__).parents[2] / "examples" / "01_digits"
SETTINGS: dict[str, Any] = {
    "target": "cpu",
    "calibrator": "minmax",
    "preprocess": DIGITS / "preprocess.yaml",
}
CHANGE = 100  # request at which the data changes
EVERY = 5  # requests between two looks
DUSK = 0.6  # brightness of what was calibrated with
LAST = 150  # requests that an accuracy is of
Images = NDArray[np.float64]

MISTAKES: dict[str, Callable[[Images], Images]] = {
    "unchanged": lambda pixels: pixels,
    "not divided by 255": lambda pixels: pixels * 255.0,
    "inverted": lambda pixels: 255.0 - pixels,
    "20 % darker": lambda pixels: pixels * 0.8,
    "25 levels brighter": lambda pixels: np.clip(pixels + 25.0, 0, 255),
    "rotated": lambda pixels: np.rot90(pixels, axes=(1, 2)),
}
STYLE: dict[str, Any] = {
    "figure.dpi": 110,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


def main() -> None:
    """Write ``drift.png`` and ``recalibration.png``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    with np.load(DIGITS / "test.npz", allow_pickle=False) as file:
        images, labels = file["images"].astype(np.float64), file["labels"]
    with (
        tempfile.TemporaryDirectory() as scratch,
        require("matplotlib", extra="report").rc_context(STYLE),
    ):
        save(plot_drift(images, Path(scratch)), folder / "drift.png")
        save(plot_round(images, labels, Path(scratch)), folder / "recalibration.png")


def prepared(engine: engines.Engine, pixels: Images) -> NDArray[np.float32]:
    """Pixels as the manifest says; values beyond 255 stay what they are."""
    spec = engine.preprocess
    assert spec is not None
    scaled = pixels.transpose(0, 3, 1, 2) * spec["scale"]
    return np.asarray((scaled - spec["mean"][0]) / spec["std"][0], np.float32)


def plot_drift(images: Images, scratch: Path) -> Any:
    """The farthest distance of each mistake, as a multiple of its limit."""
    path = scratch / "digits.engine"
    build(DIGITS / "digits.onnx", path, calib_data=DIGITS / "calib", **SETTINGS)
    figure = require("matplotlib.figure", extra="report").Figure(
        figsize=(7.2, 3.6), layout="constrained"
    )
    axes = figure.add_subplot()
    order = np.random.default_rng(0).permutation(len(images))[: 2 * CHANGE + 100]
    for name, change in MISTAKES.items():
        with engines.load(path, drift=True) as engine:
            usual = prepared(engine, images[order])
            changed = prepared(engine, change(images[order]))
            seen, farthest = [], []
            for number in range(len(order)):
                each = changed if number >= CHANGE else usual
                engine({"image": np.ascontiguousarray(each[number : number + 1])})
                found = engine.drift()["image"]
                if number + 1 >= WINDOW and (number + 1) % EVERY == 0:
                    seen.append(number + 1)
                    farthest.append(multiple(found))
        axes.plot(seen, farthest, label=name, linewidth=1.6)
    axes.axhline(1, color="black", linewidth=1, linestyle="--")
    axes.annotate("limit", (52, 1.08))
    axes.axvline(CHANGE, color="grey", linewidth=1, linestyle=":")
    axes.annotate("the data changes", (CHANGE + 3, 0.07), color="grey")
    axes.set_yscale("log")
    axes.set_xlabel("request")
    axes.set_ylabel("farthest distance / its limit")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def multiple(found: engines.InputDrift) -> float:
    """The distance that is farthest beyond its limit, or nearest to it."""
    assert found.distances is not None
    assert found.limits is not None
    limits: Mapping[str, float] = vars(found.limits)
    distances: Mapping[str, float] = vars(found.distances)
    return max(value / limits[name] for name, value in distances.items())


def plot_round(images: Images, labels: NDArray[np.int64], scratch: Path) -> Any:
    """Accuracy and drift: digits as calibrated, brighter ones, and a new engine for these."""
    dusk, day, calib = scratch / "dusk.engine", scratch / "day.engine", scratch / "dusk"
    calib.mkdir()
    for path in (DIGITS / "calib").glob("*.png"):
        Image.fromarray((np.asarray(Image.open(path)) * DUSK).astype(np.uint8)).save(
            calib / path.name
        )
    build(DIGITS / "digits.onnx", dusk, calib_data=calib, **SETTINGS)
    build(DIGITS / "digits.onnx", scratch / "fp32.engine", target="cpu", precision="fp32")
    right: dict[str, list[bool]] = {"FP32": [], "INT8, as served": []}
    farthest: list[float] = []
    with (
        engines.load(scratch / "fp32.engine") as exact,
        engines.Recorder(scratch / "samples", share=1.0, limit=200) as recorder,
        engines.load(dusk, record=recorder) as recorded,
        engines.EnginePool(dusk, 1, drift=True) as pool,
    ):
        spec = Preprocess.from_dict(dict(pool.manifest.passport.preprocess or {}))
        for number in range(3 * len(images)):
            if number == 2 * len(images):
                build(DIGITS / "digits.onnx", day, calib_data=scratch / "samples", **SETTINGS)
                pool.replace(day)
            at = number % len(images)
            level = DUSK if number < len(images) else 1.0
            inputs = {"image": spec((images[at] * level).astype(np.uint8).squeeze())[None]}
            if number >= len(images):  # the sample is begun when the data has moved
                recorded(inputs)
            answering: tuple[Callable[[Any], Any], ...] = (exact, pool)
            for name, one in zip(right, answering, strict=True):
                right[name].append(bool(one(inputs)["logits"][0].argmax() == labels[at]))
            found = pool.drift()["image"]
            farthest.append(np.nan if found.requests < WINDOW else multiple(found))
    return drawn(right, farthest, len(images))


def drawn(right: dict[str, list[bool]], farthest: list[float], part: int) -> Any:
    """Accuracy of the last 150 requests above drift, with what happened when."""
    figure = require("matplotlib.figure", extra="report").Figure(
        figsize=(7.2, 4.6), layout="constrained"
    )
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    for name, answers in right.items():
        shares = np.convolve(answers, np.ones(LAST) / LAST, "valid")
        numbers = np.arange(LAST, len(answers) + 1)
        above.plot(numbers, 100 * shares, label=name, linewidth=1.6)
    above.set_ylabel(f"accuracy of the last {LAST}, %")
    above.legend(loc="lower right")
    below.plot(np.arange(1, len(farthest) + 1), farthest, color="tab:red", linewidth=1.4)
    below.axhline(1, color="black", linewidth=1, linestyle="--")
    below.annotate("limit", (5, 1.15))
    below.set_yscale("log")
    below.set_ylabel("drift / its limit")
    below.set_xlabel("request")
    for number, what in ((part, "digits get brighter"), (2 * part, "new engine takes over")):
        for axes in (above, below):
            axes.axvline(number, color="grey", linewidth=1, linestyle=":")
        at, up = (number + 8, below.get_ylim()[0]), (0, 4)
        below.annotate(what, at, up, textcoords="offset points", color="grey")
    return figure


def save(figure: Any, path: Path) -> None:
    """Without the name of the program that wrote it."""
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
