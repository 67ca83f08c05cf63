"""Networks that no library has in a small size: a U-Net, and a decoder with its cache."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["MODELS", "PAST", "Decoder", "UNet", "decoder"]

Inputs = dict[str, Tensor]
PAST = 192  # positions in the cache


def _stage(came: int, goes: int) -> nn.Sequential:
    sides = ((came, goes), (goes, goes))
    return nn.Sequential(
        *(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in sides
        )
    )


class UNet(nn.Module):
    """Three levels of two convolutions, max pooling, linear upsampling, skips that are joined."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.down = nn.ModuleList([_stage(3, width), _stage(width, 2 * width)])
        self.bottom = _stage(2 * width, 4 * width)
        self.up = nn.ModuleList([_stage(6 * width, 2 * width), _stage(3 * width, width)])
        self.head = nn.Conv2d(width, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores of four classes for every pixel."""
        skips, x = [], image
        for stage in self.down:
            skips.append(stage(x))
            x = nn.functional.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for stage, skip in zip(self.up, reversed(skips), strict=True):
            x = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
            x = stage(torch.cat([x, skip], 1))
        scores: Tensor = self.head(x)
        return scores


class _Block(nn.Module):
    """A pre-norm block whose keys and values are joined to those of earlier positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor, past: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Hidden states, and the longer keys and values."""
        y = self.norms[0](x)
        shape = (1, -1, self.heads, self.size)
        q, k, v = (layer(y).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        scores = q @ k.transpose(2, 3) / math.sqrt(self.size) + mask
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        x = x + self.out(mixed)
        return x + self.mlp(self.norms[1](x)), k, v


class Decoder(nn.Module):
    """Two blocks and a vocabulary of 1,000.

    Args:
        width: of hidden states.
        heads: of the attention.
    """

    def __init__(self, width: int = 128, heads: int = 2) -> None:
        super().__init__()
        self.table = nn.Embedding(1000, width)
        self.blocks = nn.ModuleList([_Block(width, heads) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, ids: Tensor, mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Scores of the next token at each new position, and all keys and values."""
        x, caches = self.table(ids), list[Tensor]()
        for number, block in enumerate(self.blocks):
            x, k, v = block(x, mask, past[2 * number : 2 * number + 2])
            caches += [k, v]
        return self.head(self.norm(x)), *caches


def decoder(length: int) -> tuple[nn.Module, Inputs]:
    """A decoder that reads ``length`` new tokens behind those of its cache."""
    mask = torch.full((1, 1, length, PAST + length), -10000.0).triu(PAST + 1)
    past = {f"{kind}_{n}": torch.randn(1, 2, PAST, 64) for n in range(2) for kind in "kv"}
    return Decoder(), {"ids": torch.randint(1, 1000, (1, length)), "mask": mask, **past}


MODELS: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "unet": lambda: (UNet(), {"image": torch.randn(1, 3, 128, 128)}),
    "decoder-64": lambda: decoder(64),
}


def main() -> None:
    """Make and export: ``python placement_models.py NAME OUTPUT.onnx``."""
    name, output = sys.argv[1:]
    torch.manual_seed(0)
    module, inputs = MODELS[name]()
    torch.onnx.export(
        module.eval(),
        tuple(inputs.values()),
        output,
        input_names=list(inputs),
        dynamo=True,
        external_data=False,
    )


if __name__ == "__main__":
    main()
