"""Small networks for other than images, and a ViT, trained here on real data in a few minutes.

Always the same on one kind of processor. Keywords are those of the keyword case: the first half
trains, the second is evaluated. Digits are scikit-learn's, 8 by 8, 1,000 of them to train.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

__all__ = ["NETWORKS"]

MODULES = ("argparse", "tarfile", "_pydecimal", "turtle", "typing", "difflib", "ipaddress", "ast")
# The first samples of a file; what is evaluated are others.
TRAINED_KEYWORDS, TRAINED_DIGITS, TRAINED_TEXTS = 500, 1000, 1000
_WIDTH, _HEADS, _BATCH = 64, 4, 32


class Block(nn.Module):
    """Attention and a feed-forward part, each behind a normalization (pre-norm)."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.qkv, self.out = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.feed = nn.Sequential(
            nn.Linear(_WIDTH, 2 * _WIDTH), nn.GELU(), nn.Linear(2 * _WIDTH, _WIDTH)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, tokens, width) → the same."""
        count, size = tokens.shape[1], _WIDTH // _HEADS
        heads = self.qkv(self.before(tokens)).reshape(-1, count, 3, _HEADS, size)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        likeness = (query @ key.transpose(-1, -2) * size**-0.5).softmax(-1)
        mixed = (likeness @ value).transpose(1, 2).reshape(-1, count, _WIDTH)
        tokens = tokens + self.out(mixed)
        result: Tensor = tokens + self.feed(self.between(tokens))
        return result


class Transformer(nn.Module):
    """Classifier of tokens: embedding, places, blocks, mean."""

    def __init__(self, features: int, count: int, classes: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, _WIDTH)
        self.places = nn.Parameter(0.02 * torch.randn(1, count, _WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
        self.head = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, classes))

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, count, features) → class scores."""
        result: Tensor = self.head(self.blocks(self.embed(tokens) + self.places).mean(1))
        return result


class Frames(nn.Module):
    """(N, 1, frames, features) of sound to a network of tokens, brought to about -1 to 1."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, sound: Tensor) -> Tensor:
        """Class scores."""
        result: Tensor = self.inner(sound.squeeze(1) / 64.0)
        return result


class Patches(nn.Module):
    """(N, 1, 8, 8) pixels of 0 to 16 to a network of tokens: 16 patches of 2 by 2."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor) -> Tensor:
        """Class scores."""
        cut = image.reshape(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
        result: Tensor = self.inner(cut / 16.0)
        return result


class TextCnn(nn.Module):
    """Classifier of (N, 128) bytes: embedding, three convolutions along the text, maximum."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, _WIDTH)
        self.convolutions = nn.Sequential(
            *(nn.Sequential(nn.Conv1d(_WIDTH, _WIDTH, 5, padding=2), nn.ReLU()) for _ in range(3))
        )
        self.head = nn.Linear(_WIDTH, classes)

    def forward(self, text: Tensor) -> Tensor:
        """Class scores."""
        result: Tensor = self.head(self.convolutions(self.embed(text).transpose(1, 2)).amax(-1))
        return result


def text_cnn(assets: Path, folder: Path) -> None:
    """Which of eight modules of Python's library 128 bytes are from; 1,000 of 2,000 train."""
    del assets  # every Python has them
    cut = [_windows(importlib.import_module(name)) for name in MODULES]
    labels = np.repeat(np.arange(len(MODULES)), [len(windows) for windows in cut])
    order = np.random.default_rng(0).permutation(len(labels))[:2000]
    text, labels = np.concatenate(cut)[order], labels[order]
    torch.manual_seed(0)
    net = TextCnn(len(MODULES))
    _train(net, text[:TRAINED_TEXTS], labels[:TRAINED_TEXTS], epochs=20)
    _write(net, "text_cnn", folder, {"text": text, "labels": labels})


def _windows(module: ModuleType) -> NDArray[np.int64]:
    code = np.frombuffer(inspect.getsource(module).encode(), np.uint8)
    return code[: len(code) // 128 * 128].reshape(-1, 128).astype(np.int64)


def keyword_transformer(assets: Path, folder: Path) -> None:
    """Two blocks over 49 frames."""
    torch.manual_seed(0)
    _keywords(Frames(Transformer(10, 49, 12, depth=2)), "keyword_transformer", assets, folder)


def digits_vit(assets: Path, folder: Path) -> None:
    """Three blocks over 16 patches."""
    del assets  # scikit-learn ships the digits
    images, labels = load_digits(return_X_y=True)
    torch.manual_seed(0)
    pixels = images.reshape(-1, 1, 8, 8).astype(np.float32)
    net = Patches(Transformer(4, 16, 10, depth=3))
    _train(net, pixels[:TRAINED_DIGITS], labels[:TRAINED_DIGITS])
    _write(net, "digits_vit", folder, {"image": pixels, "labels": labels})


NETWORKS = {
    "keyword_transformer": keyword_transformer,
    "digits_vit": digits_vit,
    "text_cnn": text_cnn,
}
"""File of a case → writes its model and samples, given the assets and a folder."""


def _keywords(net: nn.Module, name: str, assets: Path, folder: Path) -> None:
    with np.load(assets / "kws/kws01_1000.npz", allow_pickle=False) as file:
        codes, labels = file["X"], file["Y"]
    sound = (codes.astype(np.float32) - 83) * np.float32(0.5847029)
    sound = sound.reshape(-1, 1, 49, 10)
    _train(net, sound[:TRAINED_KEYWORDS], labels[:TRAINED_KEYWORDS])
    _write(net, name, folder, {"sound": sound, "labels": labels})


def _train(net: nn.Module, inputs: NDArray[Any], labels: NDArray[Any], epochs: int = 60) -> None:
    """AdamW with warm-up and decay; what is no text is moved by a step and grained."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * (len(inputs) // _BATCH)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    grain = 0.1 * float(inputs.std())
    for _ in range(steps):
        rows = torch.randint(len(inputs), (_BATCH,)).numpy()
        batch = torch.from_numpy(inputs[rows])
        if batch.is_floating_point():
            moved = batch.roll(int(torch.randint(-1, 2, ())), dims=2)
            batch = moved + grain * torch.randn(batch.shape)
        loss = nn.functional.cross_entropy(net(batch), torch.from_numpy(labels[rows]).long())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        plan.step()


def _write(net: nn.Module, name: str, folder: Path, arrays: dict[str, NDArray[Any]]) -> None:
    (entry,) = arrays.keys() - {"labels"}
    example = torch.from_numpy(arrays[entry][:2])
    program = torch.onnx.export(
        net.eval(),
        (example,),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[entry],
        output_names=["scores"],
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # where dynamo is asked for
    np.savez(folder / f"{name}.npz", allow_pickle=False, **arrays)
    program.save(folder / "models" / f"{name}.onnx")
