"""Train the digits classifier and write everything the engine builder is fed with.

Written next to this file (or to ``--out``):

    digits.onnx      FP32 classifier, input ``image`` (N, 1, 32, 32), output ``logits`` (N, 10)
    calib/*.png      200 unlabelled calibration images, 32x32 grey
    test.npz         500 labelled test images: uint8 ``images`` (500, 32, 32, 1), int64 ``labels``
    preprocess.yaml  how a picture becomes the network's input

The images are the 1,797 handwritten digits that scikit-learn ships (UCI Optical Recognition of
Handwritten Digits), enlarged from 8x8 to 32x32. The three splits are disjoint and always the same.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

HERE = Path(__file__).parent
SIZE = 32
TEST, CALIBRATION = 500, 200  # the rest, 1,097 images, trains
MEAN, STD = 0.307, 0.324  # of the training split, in [0, 1]; checked by the tests
PREPROCESS = f"""\
# How a picture becomes the input of digits.onnx: (pixel * scale - mean) / std
resize: [{SIZE}, {SIZE}]
color: gray
scale: {1 / 255!r}
mean: [{MEAN}]
std: [{STD}]
layout: nchw
"""


class Residual(nn.Module):
    """Two 3x3 convolutions around a skip; the skip is a 1x1 convolution where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        return torch.relu(self.body(x) + self.skip(x))


def depthwise_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution per channel, then a 1x1 convolution across them."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class DigitsNet(nn.Module):
    """34 million multiply-adds an image, 0.36 million weights; channels are multiples of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            Residual(32, 64, stride=2),
            depthwise_block(64, 128, stride=2),
            Residual(128, 128),
        )
        self.head = nn.Linear(128, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, 1, 32, 32) normalised -> (N, 10) logits."""
        return self.head(self.features(image).mean(dim=(2, 3)))


def load_splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The digits as uint8 (N, 32, 32) with labels, in three disjoint splits."""
    digits = load_digits()
    scans = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.stack(
        [np.asarray(Image.fromarray(scan).resize((SIZE, SIZE), Image.BILINEAR)) for scan in scans]
    )
    order = np.random.default_rng(2024).permutation(len(images))
    parts = np.split(order, [TEST, TEST + CALIBRATION])
    names = ("test", "calibration", "train")
    labels = digits.target.astype(np.int64)
    return {name: (images[at], labels[at]) for name, at in zip(names, parts, strict=True)}


def normalise(images: np.ndarray) -> torch.Tensor:
    """uint8 (N, 32, 32) -> float32 (N, 1, 32, 32), as ``preprocess.yaml`` says."""
    return torch.from_numpy((images[:, None].astype(np.float32) / 255 - MEAN) / STD)


def shifted(images: torch.Tensor) -> torch.Tensor:
    """Each image moved by up to two pixels: the only augmentation."""
    background = -MEAN / STD
    padded = nn.functional.pad(images, (2, 2, 2, 2), value=background)
    out = torch.empty_like(images)
    for i, (dy, dx) in enumerate(torch.randint(0, 5, (len(images), 2)).tolist()):
        out[i] = padded[i, :, dy : dy + SIZE, dx : dx + SIZE]
    return out


def train(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, batch: int = 64
) -> None:
    """AdamW with a one-cycle learning rate."""
    steps = -(-len(images) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * steps)
    for epoch in range(epochs):
        model.train()
        started, total = time.monotonic(), 0.0
        for at in torch.randperm(len(images)).split(batch):
            loss = nn.functional.cross_entropy(
                model(shifted(images[at])), labels[at], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(at)
        took = time.monotonic() - started
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(images):.3f}, {took:.1f} s")


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Fraction of images whose largest logit is the label's."""
    model.eval()
    hits = sum(
        int((model(x).argmax(1) == y).sum())
        for x, y in zip(images.split(100), labels.split(100), strict=True)
    )
    return hits / len(images)


def export(model: nn.Module, path: Path) -> None:
    """One ONNX file with a dynamic batch, without the exporter's notes on this machine's files."""
    model.eval()
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, SIZE, SIZE),),
        dynamo=True,
        opset_version=18,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        verbose=False,
    )
    exported = program.model_proto
    for part in (exported, exported.graph, *exported.graph.node, *exported.graph.value_info):
        del part.metadata_props[:]
    onnx.save(exported, path)


def write_samples(splits: dict[str, tuple[np.ndarray, np.ndarray]], out: Path) -> None:
    """Calibration images as a folder of PNG files, test images as one labelled NPZ."""
    (out / "calib").mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(splits["calibration"][0]):
        Image.fromarray(image).save(out / "calib" / f"{index:03d}.png", optimize=True)
    images, labels = splits["test"]
    np.savez_compressed(out / "test.npz", images=images[..., None], labels=labels)
    (out / "preprocess.yaml").write_text(PREPROCESS)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--limit", type=int, help="train on the first N images only")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    splits = load_splits()
    write_samples(splits, args.out)
    data = {name: (normalise(x), torch.from_numpy(y)) for name, (x, y) in splits.items()}
    model = DigitsNet()
    train(model, *(part[: args.limit] for part in data["train"]), epochs=args.epochs)
    top1 = accuracy(model, *data["test"])
    export(model, args.out / "digits.onnx")
    print(json.dumps({"test_images": TEST, "fp32_top1": top1}))


if __name__ == "__main__":
    main()
