"""A network that INT8 harms in one layer, samples of it, and the command that searches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import yaml

from build_engine import main
from quantization.measure.execution import load_onnxruntime
from tests.networks import Builder

CLASSES = 8


def compressing() -> onnx.ModelProto:
    """A network whose first layer alone INT8 cannot do, and labels are by it.

    Small inputs and rare inputs a thousand times as large count alike: half of the channels see
    the small ones, for the other half those vanish beside the large ones. No 8-bit grid has both.
    """
    net = Builder(21)
    x = net.input("input", ("N", 8, 6, 6))
    x = net.conv(x, 32, 1, bias=False)
    weight = net.initializers[-1]
    values = onnx.numpy_helper.to_array(weight) * np.repeat([1.0, 0.002], 16).reshape(-1, 1, 1, 1)
    weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
    x = net.op("Tanh", x)
    for _ in range(2):
        x = net.relu(net.conv(x, 32, 3))
    pooled = net.op("Flatten", net.op("GlobalAveragePool", x))
    return net.build("compressing", net.gemm(pooled, 32, CLASSES))


def inputs_of(rng: np.random.Generator, count: int) -> np.ndarray:
    level = rng.normal(size=(count, 8, 1, 1))
    small = level + 0.3 * rng.normal(size=(count, 8, 6, 6))
    large = 500 * rng.normal(size=(count, 8, 1, 1))
    spikes = np.where(rng.random((count, 8, 6, 6)) < 0.1, large, 0)
    return (small + spikes).astype(np.float32)


class Work:
    """A folder with a model, calibration samples and samples that FP32 gets right."""

    def __init__(self, folder: Path, rng: np.random.Generator, batch: int | None = None) -> None:
        self.folder = folder
        model = compressing()
        arrays = {name: inputs_of(rng, n) for name, n in (("calib", 60), ("eval", 240))}
        run = load_onnxruntime(model)
        scores = next(iter(run({"input": np.concatenate(list(arrays.values()))}).values()))
        bias = next(t for t in model.graph.initializer if t.dims == [CLASSES])
        centred = onnx.numpy_helper.to_array(bias) - scores.mean(axis=0)
        bias.CopyFrom(onnx.numpy_helper.from_array(centred, bias.name))
        right = next(iter(load_onnxruntime(model)({"input": arrays["eval"]}).values()))
        if batch is not None:
            for value in (*model.graph.input, *model.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = batch
        onnx.save(model, folder / "net.onnx")
        np.savez(folder / "calib.npz", input=arrays["calib"])
        labels = right.argmax(axis=1)
        np.savez(folder / "eval.npz", input=arrays["eval"], labels=labels)
        low = labels > 0
        np.savez(folder / "off.npz", input=arrays["eval"][low], labels=labels[low] - 1)

    def run(self, out: str, *flags: object, evaluate: str | None = "eval") -> int:
        words: list[object] = ["--onnx", self.folder / "net.onnx", "--target", "cpu"]
        words += ["--engine", self.folder / out / "n.int8.engine"]
        words += ["--calib-data", self.folder / "calib.npz"]
        words += ["--eval-data", self.folder / f"{evaluate}.npz"] if evaluate else []
        words += [] if "--recipe" in flags else ["--improve", 16]
        return main([str(word) for word in (*words, *flags)])

    def file(self, out: str, suffix: str) -> Path:
        return self.folder / out / f"n{suffix}"

    def recipe(self, out: str) -> dict[str, object]:
        loaded: dict[str, object] = yaml.safe_load(self.file(out, ".recipe.yaml").read_text())
        return loaded
