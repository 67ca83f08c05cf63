"""Small PyTorch networks of the common families, as users write them, with running statistics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

__all__ = ["SIDE", "TORCH_NETWORKS", "with_statistics"]

SIDE = 32  # input (N, 3, 32, 32)


def conv_bn(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(inputs, width, 1),
            nn.ReLU(),
            conv_bn(width, width, 3, stride),
            nn.ReLU(),
            conv_bn(width, 2 * width, 1),
        )
        self.skip = (
            nn.Identity()
            if stride == 1 and inputs == 2 * width
            else conv_bn(inputs, 2 * width, 1, stride)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.skip(x) + self.body(x))


class ResNet(nn.Sequential):
    """Down-sampling and plain skips, max pooling, dropout before the head."""

    def __init__(self) -> None:
        super().__init__(
            conv_bn(3, 32),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            Bottleneck(32, 32, 2),
            Bottleneck(64, 32, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64, 10),
        )


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.adds = stride == 1 and inputs == outputs
        wide = 2 * inputs
        self.body = nn.Sequential(
            conv_bn(inputs, wide, 1),
            nn.ReLU6(),
            conv_bn(wide, wide, 3, stride, groups=wide),
            nn.ReLU6(),
            conv_bn(wide, outputs, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class MobileNetV2(nn.Module):
    """Depthwise layers and linear bottlenecks."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_bn(3, 32, 3, 2),
            nn.ReLU6(),
            InvertedResidual(32, 32, 1),
            InvertedResidual(32, 64, 2),
            InvertedResidual(64, 64, 1),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


def conv_silu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    block = conv_bn(inputs, outputs, kernel, stride)
    block[1].eps, block[1].momentum = 1e-3, 0.03  # as every YOLO since v5 has them
    return nn.Sequential(block, nn.SiLU())


class CrossStage(nn.Module):
    """Two branches, one with a residual, joined by Concat (YOLOv5's C3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.left, self.right = conv_silu(channels, half, 1), conv_silu(channels, half, 1)
        self.inner = nn.Sequential(conv_silu(half, half, 1), conv_silu(half, half, 3))
        self.out = conv_silu(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left = self.left(x)
        return self.out(torch.cat([left + self.inner(left), self.right(x)], 1))


class SplitStage(nn.Module):
    """The map cut in two, one half going on, everything joined (YOLOv8's C2f)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.into, self.out = (
            conv_silu(channels, channels, 1),
            conv_silu(channels * 3 // 2, channels, 1),
        )
        self.inner = conv_silu(channels // 2, channels // 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.into(x).chunk(2, 1))
        return self.out(torch.cat([*parts, parts[-1] + self.inner(parts[-1])], 1))


class Detector(nn.Module):
    """YOLO's blocks: C3, C2f, pyramid pooling, nearest upsampling; a ConvTranspose; two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_silu(3, 32, 3, 2)
        self.stage = CrossStage(32)
        self.down = conv_silu(32, 64, 3, 2)
        self.reduce = conv_silu(64, 32, 1)
        self.pyramid = conv_silu(128, 64, 1)
        self.lateral = conv_silu(64, 32, 1)
        self.fine = SplitStage(64)
        self.up = nn.ConvTranspose2d(64, 32, 2, 2)
        self.heads = nn.ModuleList([nn.Conv2d(32, 6, 1), nn.Conv2d(64, 6, 1)])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shallow = self.stage(self.stem(x))
        pooled = [self.reduce(self.down(shallow))]
        for _ in range(3):
            pooled.append(functional.max_pool2d(pooled[-1], 5, 1, 2))
        deep = self.pyramid(torch.cat(pooled, 1))
        upsampled = functional.interpolate(self.lateral(deep), scale_factor=2.0, mode="nearest")
        fine = self.fine(torch.cat([upsampled, shallow], 1))
        return self.heads[0](functional.silu(self.up(fine))), self.heads[1](deep)


class VisionTransformer(nn.Module):
    """One block: attention, LayerScale that starts at 1, GELU."""

    def __init__(self, width: int = 64, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.position = nn.Parameter(0.02 * torch.randn(1, (SIDE // 4) ** 2, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layer_scale = nn.Parameter(torch.ones(width))
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2) + self.position
        x = x + self.layer_scale * self.attend(self.norms[0](x))
        return self.head((x + self.mlp(self.norms[1](x))).mean(1))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.project(mixed.transpose(1, 2).reshape(batch, length, width))


def with_statistics(network: nn.Module) -> nn.Module:
    """Running statistics, gammas and betas as training leaves them, instead of 0 and 1."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return network


TORCH_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": ResNet,
    "mobilenet_v2": MobileNetV2,
    "detector": Detector,
    "vit": VisionTransformer,
}
