"""The networks and data that accuracy is compared on, from the evaluation folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import calibrators
import quantization
from benchmarks.accuracy import ClassificationTask, DetectionTask, Task
from calibrators import Preprocess, Samples

__all__ = ["CASES", "Case"]

_MOBILENET = {"resize": 256, "scale": "1/128", "mean": 1}
_CIFAR = {"scale": "1/255", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_YOLOX = {"letterbox": {"size": 416}, "color": "bgr", "antialias": False, "scale": 1}
_KWS = {"inputs": {"input": {"scale": 0.5847029, "zero_point": 83}}}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network with its data.

    Attributes:
        file: of the model.
        preprocess: the spec; empty where samples are what the model takes.
        calibration: path of the calibration samples, and which of them.
        evaluation: path of the evaluation samples, and which of them.
        label_offset: added to a label to get the model's class.
        annotations: COCO annotations of a detector; empty for classifiers.
        trained: whether it is trained for the comparison (trained_networks).
    """

    file: str
    preprocess: dict[str, Any]
    calibration: tuple[str, slice]
    evaluation: tuple[str, slice]
    label_offset: int = 0
    annotations: str = field(default="")
    trained: bool = False

    def home(self, assets: Path, folder: Path) -> Path:
        """Where model and samples lie: among the assets, or in ``folder`` what is trained there."""
        if not self.trained:
            return assets
        if not (folder / "models" / f"{self.file}.onnx").is_file():
            from benchmarks.peers.trained_networks import NETWORKS

            (folder / "models").mkdir(exist_ok=True)
            NETWORKS[self.file](assets, folder)
        return folder

    def model(self, assets: Path) -> onnx.ModelProto:
        """The prepared float model."""
        path = assets / "models" / f"{self.file}.onnx"
        return quantization.prepare(quantization.load_model(path))

    def samples(self, assets: Path, model: onnx.ModelProto, part: str) -> Samples:
        """Samples of one part: "calibration" or "evaluation"."""
        path, rows = self.calibration if part == "calibration" else self.evaluation
        return calibrators.open_samples(
            assets / path,
            inputs=calibrators.input_specs(model),
            preprocess=Preprocess.from_dict(self.preprocess) if self.preprocess else None,
        )[rows]

    def calibration_rows(self, assets: Path, model: onnx.ModelProto, folder: Path) -> Path:
        """Calibration samples as every system is handed them: the rows of the only input."""
        path = folder / f"{self.file}.npy"
        samples = self.samples(assets, model, "calibration")
        np.save(path, np.concatenate([next(iter(s.inputs.values())) for s in samples]))
        return path

    def rows(self, assets: Path, part: str, folder: Path) -> Path:
        """Samples of one part as a path for the command: arrays are cut, folders taken whole.

        Evaluation samples that are calibration samples, too (some keywords are in the file twice),
        are left out: the command refuses them.
        """
        path, rows = self.calibration if part == "calibration" else self.evaluation
        if not path.endswith(".npz"):
            return assets / path
        cut = folder / f"{self.file}.{part}.npz"
        with np.load(assets / path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        chosen = np.arange(len(next(iter(arrays.values()))))[rows]
        if part == "evaluation" and self.calibration[0] == path:
            seen = {_content(arrays, number) for number in range(self.calibration[1].stop)}
            chosen = np.array([n for n in chosen if _content(arrays, int(n)) not in seen])
        np.savez(cut, **{name: array[chosen] for name, array in arrays.items()})
        return cut

    def task(self, assets: Path) -> Task:
        """What the labels mean."""
        if self.annotations:
            return DetectionTask(annotations=assets / self.annotations)
        return ClassificationTask(label_offset=self.label_offset)


def _content(arrays: dict[str, np.ndarray], number: int) -> bytes:
    """Bytes of a row's input, which is larger than its label."""
    return bytes(max((array[number].tobytes() for array in arrays.values()), key=len))


_CIFAR_CALIBRATION = ("cifar10/calib.npz", slice(0, 256))
_CIFAR_EVALUATION = ("cifar10/test.npz", slice(0, 2000))
_IMAGENET_CALIBRATION = ("imagenet/calib", slice(0, 125))
_IMAGENET_EVALUATION = ("imagenet/test", slice(0, 250))
_KWS_FILE = "kws/kws01_1000.npz"

CASES = {
    "CIFAR ResNet-20": Case(
        file="cifar_resnet20",
        preprocess=_CIFAR,
        calibration=_CIFAR_CALIBRATION,
        evaluation=_CIFAR_EVALUATION,
    ),
    "ResNet-8": Case(
        file="resnet8_cifar10_fp32",
        preprocess={"scale": 1},
        calibration=_CIFAR_CALIBRATION,
        evaluation=_CIFAR_EVALUATION,
    ),
    "MobileNetV1 0.25": Case(
        file="mobilenet_v1_0.25_128_fp32",
        preprocess={**_MOBILENET, "resize": 146, "crop": 128},
        label_offset=1,
        calibration=_IMAGENET_CALIBRATION,
        evaluation=_IMAGENET_EVALUATION,
    ),
    "MobileNetV2": Case(
        file="mobilenet_v2_1.0_224_fp32",
        preprocess={**_MOBILENET, "crop": 224},
        label_offset=1,
        calibration=_IMAGENET_CALIBRATION,
        evaluation=_IMAGENET_EVALUATION,
    ),
    "DS-CNN keywords": Case(
        file="kws_dscnn_fp32",
        preprocess=_KWS,
        calibration=(_KWS_FILE, slice(0, 256)),
        evaluation=(_KWS_FILE, slice(500, 1000)),
    ),
    "YOLOX-nano": Case(
        file="yolox_nano",
        preprocess=_YOLOX,
        calibration=("coco/calib", slice(0, 64)),
        evaluation=("coco/val", slice(0, 100)),
        annotations="coco/instances_val.json",
    ),
    "keyword transformer": Case(
        file="keyword_transformer",
        preprocess={"scale": 1},
        calibration=("keyword_transformer.npz", slice(0, 256)),
        evaluation=("keyword_transformer.npz", slice(500, 1000)),
        trained=True,
    ),
    "text CNN": Case(
        file="text_cnn",
        preprocess={},
        calibration=("text_cnn.npz", slice(0, 256)),
        evaluation=("text_cnn.npz", slice(1000, 2000)),
        trained=True,
    ),
    "digits ViT": Case(
        file="digits_vit",
        preprocess={"scale": 1},
        calibration=("digits_vit.npz", slice(0, 256)),
        evaluation=("digits_vit.npz", slice(1000, 1797)),
        trained=True,
    ),
}
