"""A Resize to sizes that are computed, or of named axes, by constant scales of all axes.

Exporters keep a free batch by computing the target, Concat(Shape(x)[:2], [H, W]), or by naming the
axes that change (Resize-18). OpenVINO 2026.4 runs the first in float, and the convolution behind it
with it: the decoder of a U-Net; TensorRT-RTX 1.7 cannot parse sizes of named axes where another one
is free ("axis 0 with inherently negative length"). By scales [1, 1, 2, 2] both have it in INT8.
Where the axes themselves are free, the sizes of all are computed, which both can read.

By ONNX's definition of Resize the size by a scale is floor(length x scale), and by a size the scale
is size / length. A ratio that float32 cannot hold is rounded up until the floor is the size; the
nearest positions have to be the same ones then, or the Resize stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from graphs.walk import attributes
from quantization.prepare.writer import Steps, Writer

__all__ = ["constant_scales", "write_all_sizes"]

Sizes = Sequence[int | str]

_NEAREST: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
}


def constant_scales(node: NodeProto, source: Sizes, target: Sizes) -> list[float] | None:
    """Scales of all axes of a Resize to sizes, e.g. [1.0, 1.0, 2.0, 2.0]; None where none will do.

    Args:
        node: a Resize to sizes.
        source: the shape that it reads, e.g. ("N", 3, 32, 32): axes that are free have names.
        target: the sizes of the axes that it names, or of all.
    """
    given = attributes(node)
    axes = list(given.get("axes", range(len(source))))
    cropped = given.get("coordinate_transformation_mode", b"") == b"tf_crop_and_resize"
    if not _stretches(given) or cropped or len(axes) != len(target):
        return None
    if any(not -len(source) <= axis < len(source) for axis in axes):
        return None
    scales = [1.0] * len(source)
    for axis, size in zip(axes, target, strict=True):
        scale = _scale(given, source[axis], size)
        if scale is None:
            return None
        scales[axis] = scale
    return scales


def write_all_sizes(writer: Writer, node: NodeProto) -> list[NodeProto]:
    """A Resize to sizes of named axes: the others, of which one is free, as they are read."""
    given = attributes(node)
    rank = writer.rank(node.input[0])
    named = len(node.input) > 3 and "axes" in given
    if not named or rank is None or not _stretches(given):
        return []
    axes = [axis % rank for axis in given.pop("axes")]
    if all(axis in axes or writer.size(node.input[0], axis) is not None for axis in range(rank)):
        return []
    steps = Steps(writer, node)
    known = steps("Concat", steps("Shape", node.input[0]), node.input[3], axis=0)
    chosen = [rank + axes.index(axis) if axis in axes else axis for axis in range(rank)]
    sizes = steps("Gather", known, steps.constant("chosen", chosen))
    steps("Resize", node.input[0], *node.input[1:3], sizes, **given)
    return steps.finish()


def _stretches(given: dict[str, Any]) -> bool:
    """Whether each axis gets its size; other policies choose one ratio for all."""
    return bool(given.get("keep_aspect_ratio_policy", b"stretch") == b"stretch")


def _scale(given: dict[str, Any], length: int | str, size: int | str) -> float | None:
    """What takes ``length`` to ``size``; None where that is not known, or not the same."""
    if length == size:
        return 1.0
    if isinstance(length, str) or isinstance(size, str) or length <= 0 or size <= 0:
        return None
    scale = np.float32(size / length)
    if float(scale) * length == size:
        return float(scale)
    if float(scale) * length < size:
        scale = np.nextafter(scale, np.float32(np.inf))
    fits = all(math.floor(product) == size for product in (scale * length, float(scale) * length))
    return float(scale) if fits and _reads_the_same(given, length, size, scale) else None


def _reads_the_same(given: dict[str, Any], length: int, size: int, scale: np.float32) -> bool:
    """Whether a scale that is off by its rounding chooses the same positions, however computed."""
    way = given.get("coordinate_transformation_mode", b"half_pixel").decode()
    if given.get("mode", b"nearest") != b"nearest" or way == "align_corners":
        return True  # positions hardly move, or do not depend on the scale
    if way not in ("asymmetric", "half_pixel", "pytorch_half_pixel"):
        return False
    shift = 0.0 if way == "asymmetric" or (way != "half_pixel" and size == 1) else 0.5
    nearest = _NEAREST[given.get("nearest_mode", b"round_prefer_floor").decode()]
    exact, rounded = np.array([size / length]), np.array([scale])
    chosen = [
        np.clip(
            nearest((np.arange(size).astype(ratio.dtype) + shift) / ratio - shift), 0, length - 1
        )
        for ratio in (exact, rounded.astype(np.float64), rounded)
    ]
    return all(np.array_equal(chosen[0], other) for other in chosen[1:])
