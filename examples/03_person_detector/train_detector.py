"""A person detector from FP32 training to a measured INT8 engine, the way a YOLO user goes.

    render → FP32 training → post-training quantization → quantization-aware training → engines

Written to ``--out``: the pictures (``calibration/``, ``test/`` with ``test.json`` in COCO format),
``preprocess.yaml`` and ``task.yaml``, the models, the engines, ``results.json``, ``map.png`` (mAP
per epoch, FP32 beside INT8) and ``detections.png``. INT8 is for any x86 CPU here, with and without
VNNI (docs/qat.md).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from detector import STRIDES, PersonDetector, assign, detection_loss
from drawings import draw_detections, plot
from scenes import SIZE, render, write_coco

import calibrators
import engines
import quantization
from benchmarks.accuracy import DetectionTask, evaluate
from quantization import qat

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PREPROCESS = f"""\
# (pixel * scale - mean) / std
resize: [{SIZE}, {SIZE}]
color: rgb
scale: {1 / 255!r}
mean: [0.5, 0.5, 0.5]
std: [0.25, 0.25, 0.25]
layout: nchw
"""
TASK = f"""\
task: detection
annotations: test.json
decode: yolox
strides: {list(STRIDES)}
"""
METHODS = ("minmax", "entropy", "mse")
BATCH = 16


class Pictures:
    """Rendered pictures in memory, with their targets for both ways round."""

    def __init__(self, count: int) -> None:
        self.images = np.zeros((count, SIZE, SIZE, 3), np.uint8)
        targets: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[], []]
        for index in range(count):
            picture, boxes = render("train", index)
            self.images[index] = np.asarray(picture)
            straight = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
            mirrored = straight.clone()
            mirrored[:, [0, 2]] = SIZE - straight[:, [2, 0]]
            targets[0].append(assign(straight, SIZE))
            targets[1].append(assign(mirrored, SIZE))
        self.boxes = [torch.stack([boxes for boxes, _ in side]) for side in targets]
        self.positive = [torch.stack([mask for _, mask in side]) for side in targets]

    def batches(self) -> Any:
        """Shuffled batches of images, boxes and positives; half of them mirrored."""
        for at in torch.randperm(len(self.images)).split(BATCH):
            mirrored = int(torch.randint(2, ()))
            images = self.images[at.numpy()][:, :, :: -1 if mirrored else 1]
            yield normalise(images), self.boxes[mirrored][at], self.positive[mirrored][at]


def normalise(images: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), as ``preprocess.yaml`` says."""
    pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255
    return torch.from_numpy((pixels - np.float32(0.5)) / np.float32(0.25))


def fit(
    model: torch.nn.Module, data: Pictures, out: Path, epochs: int, rate: float, freeze_at: int = 0
) -> list[float]:
    """Train with a one-cycle learning rate; mAP on the test pictures every few epochs.

    The same loop trains the float model and the prepared one. ``freeze_at``: the epoch from which
    a prepared model's ranges and statistics stand still.
    """
    steps = -(-len(data.images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    history = []
    for epoch in range(epochs):
        started, total = time.monotonic(), 0.0
        if freeze_at and epoch == freeze_at:
            qat.freeze_ranges(model)
            qat.freeze_batchnorm(model)
        model.train()
        for images, boxes, positive in data.batches():
            loss = detection_loss(model(images), boxes, positive, SIZE)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            total += loss.item() / steps
        history.append(torch_map(model, out))
        took = time.monotonic() - started
        line = f"loss {total:.2f}, mAP {history[-1]:.3f}, {took:.0f} s"
        print(f"  epoch {epoch + 1}/{epochs}: {line}", flush=True)
    return history


def torch_map(model: torch.nn.Module, out: Path) -> float:
    """mAP@[.5:.95] of a PyTorch model on the test pictures."""
    model.eval()

    def system(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            return {"detections": model(torch.from_numpy(inputs["image"])).numpy()}

    return mean_average_precision(system, out)


def specs() -> list[calibrators.InputSpec]:
    """What the network is fed with."""
    return [calibrators.InputSpec(name="image", dtype=np.dtype("f4"), shape=(None, 3, SIZE, SIZE))]


def detection_task(out: Path) -> DetectionTask:
    """How outputs become boxes and are scored; the same is in ``task.yaml`` for the commands."""
    preprocess = calibrators.Preprocess.from_yaml(out / "preprocess.yaml")
    return DetectionTask(
        annotations=out / "test.json", decode="yolox", strides=STRIDES, preprocess=preprocess
    )


def mean_average_precision(system: Any, out: Path) -> float:
    """mAP@[.5:.95] of anything that is called like an engine."""
    task = detection_task(out)
    samples = calibrators.open_samples(out / "test", inputs=specs(), preprocess=task.preprocess)
    return evaluate(system, samples, task, inputs=specs(), batch_size=25).figures["map"]


def onnx_map(path: Path, out: Path) -> float:
    """MAP of an ONNX model in onnxruntime, as its graph says: nothing fused."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return mean_average_precision(
        lambda inputs: {"detections": session.run(None, dict(inputs))[0]}, out
    )


def quantize_after_training(out: Path) -> dict[str, calibrators.Ranges]:
    """Write ``person.<method>.onnx``, calibrated on the pictures of ``calibration/``."""
    prepared = quantization.prepare(quantization.load_model(out / "person.onnx"))
    placement = quantization.place(prepared, portable=True)
    samples = calibrators.open_samples(
        out / "calibration",
        inputs=calibrators.input_specs(prepared),
        preprocess=calibrators.Preprocess.from_yaml(out / "preprocess.yaml"),
    )
    statistics = calibrators.observe(prepared, placement.tensors, samples)
    ranges = {m: calibrators.compute_ranges(statistics, method=m) for m in METHODS}
    for method in METHODS:
        int8 = quantization.insert_qdq(prepared, placement, ranges[method])
        quantization.save_model(int8, out / f"person.{method}.onnx")
    return ranges


def build_and_compare(out: Path, quick: bool) -> None:
    """Engines for this CPU, and what ``python -m benchmarks`` says of them."""
    build = [sys.executable, ROOT / "build_engine.py", "--target", "cpu"]
    models = {"fp32": "person.onnx", "mse": "person.mse.onnx", "qat": "person.qat.onnx"}
    for name, model in models.items():
        precision = "fp32" if name == "fp32" else "int8"
        run([*build, "--onnx", model, "--engine", f"{name}.engine", "--precision", precision], out)
    compare = [sys.executable, "-m", "benchmarks", *(f"{name}.engine" for name in models)]
    compare += ["--data", "test", "--preprocess", "preprocess.yaml", "--task", "task.yaml"]
    compare += ["--json", "report.json", "--markdown", "report.md", "--no-probe"]
    if quick:
        compare += ["--duration", "0.1", "--limit", "1", "--min-samples", "5", "--num", "16"]
    print(run(compare, out))


def run(command: list[object], folder: Path) -> str:
    """What a command of this project says; in ``folder``, where its files are."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, text=True, capture_output=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """The whole way; exit 1 where INT8 lost more than 0.02 mAP."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE / "out", help="folder to write to")
    parser.add_argument("--quick", action="store_true", help="one epoch on few pictures: a check")
    args = parser.parse_args()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    train, calibration, test = (64, 8, 16) if args.quick else (1500, 128, 300)
    epochs, tuning = (1, 1) if args.quick else (30, 8)
    torch.manual_seed(0)
    print("rendering")
    write_coco(out / "calibration", "calibration", calibration)
    write_coco(out / "test", "test", test)
    (out / "preprocess.yaml").write_text(PREPROCESS)
    (out / "task.yaml").write_text(TASK)
    data = Pictures(train)

    print("FP32 training")
    model = PersonDetector()
    history = {"fp32": fit(model, data, out, epochs, rate=2e-3)}
    example = (torch.zeros(2, 3, SIZE, SIZE),)
    qat.export_float(model, example, out / "person.onnx", output_names=["detections"])
    ranges = quantize_after_training(out)
    ptq = {m: onnx_map(out / f"person.{m}.onnx", out) for m in METHODS}
    print(f"post-training quantization, mAP: {ptq}")

    print("quantization-aware training")
    tuned = qat.prepare(
        model, example, ranges=ranges["mse"], output_names=["detections"], cpu_isa="portable"
    )
    history["qat"] = fit(tuned, data, out, tuning, rate=5e-4, freeze_at=max(1, tuning - 3))
    qat.export_onnx(tuned, out / "person.qat.onnx")

    build_and_compare(out, args.quick)
    results = {
        "fp32": history["fp32"][-1],
        "ptq": ptq,
        "qat": history["qat"][-1],
        "qat_onnx": onnx_map(out / "person.qat.onnx", out),
        "qat_engine": mean_average_precision(engines.load(out / "qat.engine"), out),
        "history": history,
    }
    (out / "results.json").write_text(json.dumps(results, indent=1))
    plot(results, out / "map.png")
    task, engine = detection_task(out), engines.load(out / "qat.engine")
    shown = calibrators.open_samples(
        out / "test", inputs=specs(), preprocess=task.preprocess, limit=min(12, test)
    )
    draw_detections(engine, task, shown, out)
    if not args.quick and results["qat_engine"] < results["fp32"] - 0.02:
        sys.exit("the INT8 engine lost more than 0.02 mAP against FP32")


if __name__ == "__main__":
    main()
