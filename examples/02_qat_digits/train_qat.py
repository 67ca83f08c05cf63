"""FP32 training, post-training quantization and quantization-aware training, side by side.

Two classifiers of the digits of example 01: its own network, and a slim depthwise one whose
channels differ widely in range, which post-training quantization damages. Written to ``--out``:

    precision.png     top-1 per epoch, FP32 beside INT8
    results.json      every number of plot and table
    <net>.onnx        the float model
    <net>.<how>.onnx  the INT8 models: minmax, entropy, mse (after training), qat
    <net>.engine      what build_engine.py makes of <net>.qat.onnx

INT8 is for any x86 CPU here, with and without VNNI (docs/qat.md): the numbers do not depend on the
machine, and the files run everywhere.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import onnxruntime
import torch
from torch import nn

import calibrators
import engines
import quantization
from quantization import qat

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "01_digits"))
from train import DigitsNet, accuracy, load_splits, normalise, shifted  # noqa: E402

Data = dict[str, tuple[torch.Tensor, torch.Tensor]]
METHODS = ("minmax", "entropy", "mse")


def layer(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution and BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen, filter each channel, narrow without an activation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.adds = stride == 1 and inputs == outputs
        wide = 2 * inputs
        self.body = nn.Sequential(
            layer(inputs, wide),
            nn.ReLU(),
            layer(wide, wide, 3, stride, groups=wide),
            nn.ReLU(),
            layer(wide, outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        return x + self.body(x) if self.adds else self.body(x)


class SlimNet(nn.Module):
    """A MobileNetV2 of width 16 with 16,000 weights, begun with channels of unequal ranges.

    Published MobileNets have channels whose ranges differ up to a hundredfold, so one scale per
    tensor leaves the small ones a few codes (Nagel et al. 2019, arxiv.org/abs/1906.04721). A
    network this small does not grow there by itself: BatchNorm's gammas start log-normal.
    """

    def __init__(self, width: int = 16, spread: float = 1.25) -> None:
        super().__init__()
        self.features = nn.Sequential(
            layer(1, width, 3, 2),
            nn.ReLU(),
            InvertedResidual(width, width),
            InvertedResidual(width, 2 * width, 2),
            InvertedResidual(2 * width, 2 * width),
            InvertedResidual(2 * width, 2 * width),
            layer(2 * width, 4 * width),
            nn.ReLU(),
        )
        self.head = nn.Linear(4 * width, 10)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, 1)
                module.weight.data *= torch.exp(spread * torch.randn_like(module.weight))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, 1, 32, 32) normalised -> (N, 10) logits."""
        return self.head(self.features(image).mean((2, 3)))


NETWORKS = {"digits": DigitsNet, "slim": SlimNet}


def fit(model: nn.Module, data: Data, epochs: int, rate: float, freeze_at: int = 0) -> list[float]:
    """Train with a one-cycle learning rate; top-1 on the test images after each epoch.

    The same loop trains the float model and the prepared one. ``freeze_at``: the epoch from which
    a prepared model's ranges and statistics stand still.
    """
    images, labels = data["train"]
    steps = -(-len(images) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    history = []
    for epoch in range(epochs):
        started = time.monotonic()
        if freeze_at and epoch == freeze_at:
            qat.freeze_ranges(model)
            qat.freeze_batchnorm(model)
        model.train()
        for at in torch.randperm(len(images)).split(64):
            loss = nn.functional.cross_entropy(
                model(shifted(images[at])), labels[at], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        history.append(accuracy(model, *data["test"]))
        took = time.monotonic() - started
        print(f"  epoch {epoch + 1}/{epochs}: top-1 {history[-1]:.3f}, {took:.1f} s", flush=True)
    return history


def quantize_after_training(path: Path, images: torch.Tensor) -> dict[str, calibrators.Ranges]:
    """Write the INT8 models of an exported one, by each method; return the ranges.

    The same steps as ``build_engine.py --calib-data --cpu-isa portable``, from Python.
    """
    prepared = quantization.prepare(quantization.load_model(path))
    placement = quantization.place(prepared, portable=True)
    samples = calibrators.open_samples(
        lambda: ({"image": image} for image in images.numpy()),
        inputs=calibrators.input_specs(prepared),
    )
    statistics = calibrators.observe(prepared, placement.tensors, samples)
    ranges = {m: calibrators.compute_ranges(statistics, method=m) for m in METHODS}
    for method in METHODS:
        int8 = quantization.insert_qdq(prepared, placement, ranges[method])
        quantization.save_model(int8, path.with_suffix(f".{method}.onnx"))
    return ranges


def onnx_accuracy(path: Path, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 of an ONNX model in onnxruntime, as its graph says: nothing fused."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    [logits] = session.run(None, {"image": images.numpy()})
    return float((logits.argmax(1) == labels.numpy()).mean())


def engine_accuracy(path: Path, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 of the engine that build_engine.py makes of an INT8 ONNX model, for this CPU."""
    engine = path.with_suffix(".engine")
    command = [sys.executable, ROOT / "build_engine.py", "--onnx", path, "--engine", engine]
    command += ["--precision", "int8", "--target", "cpu"]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    loaded = engines.load(engine)
    hits = [
        loaded({"image": x.numpy()})["logits"].argmax(1) == y.numpy()
        for x, y in zip(images.split(50), labels.split(50), strict=True)
    ]
    return float(np.mean(hits))


def study(name: str, data: Data, out: Path, epochs: int, tuning: int) -> dict[str, Any]:
    """All three ways for one network; returns their top-1."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    example = (data["train"][0][:2],)
    print(f"{name}: FP32 training")
    history = fit(model, data, epochs, rate=1e-2)
    qat.export_float(model, example, out / f"{name}.onnx", output_names=["logits"])
    ranges = quantize_after_training(out / f"{name}.onnx", data["calibration"][0])
    ptq = {m: onnx_accuracy(out / f"{name}.{m}.onnx", *data["test"]) for m in METHODS}
    print(f"{name}: post-training quantization: {ptq}")
    print(f"{name}: quantization-aware training")
    started = time.monotonic()
    tuned = qat.prepare(
        model, example, ranges=ranges["mse"], output_names=["logits"], cpu_isa="portable"
    )
    int8_history = fit(tuned, data, tuning, rate=2e-3, freeze_at=max(1, tuning - 2))
    minutes = (time.monotonic() - started) / 60
    int8 = out / f"{name}.qat.onnx"
    qat.export_onnx(tuned, int8)
    print(f"{name}: FP32 trained as long, for comparison")
    longer = fit(copy.deepcopy(model), data, tuning, rate=2e-3)
    return {
        "fp32": history[-1],
        "fp32_longer": longer[-1],
        "ptq": ptq,
        "qat": int8_history[-1],
        "qat_onnx": onnx_accuracy(int8, *data["test"]),
        "qat_engine": engine_accuracy(int8, *data["test"]),
        "qat_minutes": minutes,
        "history": {"fp32": history, "fp32_longer": longer, "qat": int8_history},
    }


def plot(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Top-1 per epoch: FP32 first, then FP32 and INT8 from the same point; PTQ as levels."""
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(results), figsize=(10, 4.8), constrained_layout=True)
    for axis, (name, result) in zip(np.atleast_1d(axes), results.items(), strict=True):
        history = {key: 100 * np.array(values) for key, values in result["history"].items()}
        first = len(history["fp32"])
        after = range(first, first + len(history["qat"]) + 1)
        start = history["fp32"][-1:]
        axis.plot(range(1, first + 1), history["fp32"], color="0.35", label="FP32")
        longer = np.concatenate([start, history["fp32_longer"]])
        axis.plot(after, longer, color="0.35", linestyle="--", label="FP32, trained on")
        start_int8 = 100 * result["ptq"]["mse"]
        tuned = np.concatenate([[start_int8], history["qat"]])
        axis.plot(after, tuned, color="tab:green", marker="o", markersize=3, label="INT8, QAT")
        for method, color in zip(METHODS, ("tab:red", "tab:orange", "tab:purple"), strict=True):
            level = 100 * result["ptq"][method]
            label = f"INT8, PTQ {method}: {level:.1f} %"
            axis.axhline(level, color=color, linewidth=1, linestyle=":", label=label)
        axis.axvline(first, color="0.8", linewidth=1)
        axis.set(title=name, xlabel="epoch", ylabel="top-1 on 500 test images, %")
        axis.set_ylim(min(80, 100 * min(result["ptq"].values()) - 3), 100.5)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=2, fontsize=8)
    figure.savefig(path, dpi=110)


def table(results: dict[str, dict[str, Any]]) -> str:
    """The numbers as Markdown."""
    head = ["network", "FP32", *(f"PTQ {m}" for m in METHODS), "QAT", "QAT engine (cpu)"]
    rows = [head, ["---"] * len(head)]
    for name, result in results.items():
        numbers = [result["fp32"], *result["ptq"].values(), result["qat"], result["qat_engine"]]
        rows.append([name, *(f"{100 * value:.1f} %" for value in numbers)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Both networks, the table, the plot; exit 1 where QAT did not do what it is for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE / "out", help="folder to write to")
    parser.add_argument(
        "--quick", action="store_true", help="a check: one network, one epoch, few images"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    sizes = {"train": 128, "calibration": 32, "test": 100} if args.quick else {}
    data = {
        part: (normalise(x)[: sizes.get(part)], torch.from_numpy(y)[: sizes.get(part)])
        for part, (x, y) in load_splits().items()
    }
    epochs, tuning = (1, 1) if args.quick else (15, 8)
    names = ["slim"] if args.quick else list(NETWORKS)
    results = {name: study(name, data, args.out, epochs, tuning) for name in names}
    (args.out / "results.json").write_text(json.dumps(results, indent=1))
    plot(results, args.out / "precision.png")
    print(table(results))
    if not args.quick and any(r["qat_engine"] < r["fp32"] - 0.01 for r in results.values()):
        sys.exit("an INT8 engine lost more than one point against FP32")


if __name__ == "__main__":
    main()
