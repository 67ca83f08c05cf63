"""A YOLO-style detector of one class: SiLU, C3 blocks, SPPF, a feature pyramid with two maps."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["STRIDES", "PersonDetector", "assign", "detection_loss"]

STRIDES = (8, 16)
LARGE = 36  # boxes of a larger mean side, in pixels, belong to the coarse map
Targets = tuple[torch.Tensor, torch.Tensor]  # boxes (anchors, 4), positives (anchors,)


class Conv(nn.Sequential):
    """Convolution, BatchNorm with YOLO's numbers, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
            nn.SiLU(),
        )


class C3(nn.Module):
    """Two branches, one with a residual bottleneck, joined."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.left, self.right, self.out = (
            Conv(inputs, half),
            Conv(inputs, half),
            Conv(outputs, outputs),
        )
        self.inner = nn.Sequential(Conv(half, half), Conv(half, half, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        left = self.left(x)
        return self.out(torch.cat([left + self.inner(left), self.right(x)], 1))


class Sppf(nn.Module):
    """Three max poolings in a row, joined: a wide field of view."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.out = Conv(channels, channels // 2), Conv(2 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W) -> the same shape."""
        pooled = [self.reduce(x)]
        for _ in range(3):
            pooled.append(functional.max_pool2d(pooled[-1], 5, 1, 2))
        return self.out(torch.cat(pooled, 1))


class PersonDetector(nn.Module):
    """One forward for training and deployment: raw boxes, objectness and quality as sigmoids.

    A detector that decodes boxes only in evaluation would be captured with the decoding, and
    could not be trained; so decoding is the caller's, as in YOLOX.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Conv(3, 16, 3, 2), Conv(16, 32, 3, 2), C3(32, 32))
        self.middle = nn.Sequential(Conv(32, 64, 3, 2), C3(64, 64))
        self.deep = nn.Sequential(Conv(64, 128, 3, 2), C3(128, 128), Sppf(128))
        self.lateral = Conv(128, 64)
        self.fine = C3(128, 64)
        self.heads = nn.ModuleList([nn.Conv2d(64, 6, 1), nn.Conv2d(128, 6, 1)])
        for head in self.heads:
            nn.init.constant_(head.bias[4:], -4.0)  # few cells hold a person

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, anchors, 6): x, y, w, h, objectness, quality; by stride, then row."""
        middle = self.middle(self.stem(image))
        deep = self.deep(middle)
        upsampled = functional.interpolate(self.lateral(deep), scale_factor=2.0, mode="nearest")
        fine = self.fine(torch.cat([upsampled, middle], 1))
        maps = [head(x).flatten(2) for head, x in zip(self.heads, (fine, deep), strict=True)]
        raw = torch.cat(maps, 2).transpose(1, 2)
        return torch.cat([raw[..., :4], raw[..., 4:].sigmoid()], 2)


def anchors(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Corner of each cell in cells (anchors, 2), and its stride (anchors, 1)."""
    grids, strides = [], []
    for stride in STRIDES:
        y, x = torch.meshgrid(
            torch.arange(size // stride), torch.arange(size // stride), indexing="ij"
        )
        grids.append(torch.stack([x, y], 2).reshape(-1, 2).float())
        strides.append(torch.full((grids[-1].shape[0], 1), float(stride)))
    return torch.cat(grids), torch.cat(strides)


def assign(boxes: torch.Tensor, size: int) -> Targets:
    """Which cells answer for which box: those around its centre, on the map for its size.

    Args:
        boxes: (n, 4) as x1, y1, x2, y2 in pixels.
        size: of the square image.
    """
    grid, stride = anchors(size)
    centres = (grid + 0.5) * stride
    targets = torch.zeros(len(grid), 4)
    positive = torch.zeros(len(grid), dtype=torch.bool)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for index in area.argsort(descending=True):  # a small box wins over a large one
        box = boxes[index]
        level = stride[:, 0] == STRIDES[int(area[index].sqrt() > LARGE)]
        distance = (centres - (box[:2] + box[2:]) / 2).abs().amax(1)
        near = level & (distance <= stride[:, 0])
        targets[near], positive[near] = box, True
    return targets, positive


def detection_loss(
    output: torch.Tensor, targets: torch.Tensor, positive: torch.Tensor, size: int
) -> torch.Tensor:
    """GIoU of the boxes, cross-entropy of objectness, and of quality against the IoU reached.

    Args:
        output: (N, anchors, 6) of the network.
        targets: (N, anchors, 4) from :func:`assign`.
        positive: (N, anchors), which anchors have a target.
        size: of the square image.
    """
    grid, stride = anchors(size)
    centres = (output[..., :2] + grid) * stride
    sides = output[..., 2:4].clamp(max=4).exp() * stride
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], 2)[positive]
    count = max(1, len(boxes))
    iou, giou = overlaps(boxes, targets[positive])
    confidence = output[..., 4:].clamp(1e-6, 1 - 1e-6)
    objectness = functional.binary_cross_entropy(
        confidence[..., 0], positive.float(), reduction="sum"
    )
    quality = functional.binary_cross_entropy(
        confidence[..., 1][positive], iou.detach().clamp(0, 1), reduction="sum"
    )
    return (5 * (1 - giou).sum() + objectness + quality) / count


def overlaps(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """IoU and generalised IoU of (n, 4) boxes, pair by pair (arxiv.org/abs/1902.09630)."""
    inner = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    outer = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    shared, hull = inner.prod(1), outer.prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    iou = shared / union.clamp(min=1e-6)
    return iou, iou - (hull - union) / hull.clamp(min=1e-6)
