"""Where the pixels of an image go: resize, centre crop, letterbox, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artefacts.errors import DataError

__all__ = ["INTERPOLATIONS", "Geometry", "Letterbox", "resample"]

MAX_PIXELS = 1 << 26
"""8192 × 8192: 200 MB decoded. Pillow warns from 89 million pixels, refuses from twice that."""

_BLOCK_ROWS = 64  # the temporary arrays of so many rows stay in the processor's cache

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, kw_only=True)
class Letterbox:
    """Fit an image into ``size`` with its aspect ratio kept, and fill the rest.

    Attributes:
        size: (height, width) of the result.
        pad: fill value 0..255, one for all channels or one each in the order of ``color``.
        anchor: ``centre`` (Ultralytics: sizes rounded, an odd pixel goes below and to the right)
            or ``top-left`` (YOLOX: sizes rounded down).
    """

    size: tuple[int, int]
    pad: tuple[int, ...] = (114,)
    anchor: str = "centre"


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What happens to an image of one size: resize, then place on a canvas.

    Attributes:
        source: (height, width) of the upright image.
        resized: (height, width) after resizing.
        offset: (top, left) of the resized image on the canvas; negative where it is cropped.
        size: (height, width) of the canvas, the result.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]

    def to_source(self, xy: NDArray[Any]) -> NDArray[np.float64]:
        """Map points (…, 2) as (x, y) in pixels of the result to pixels of the source image.

        ``x_source = (x - left) * width_source / width_resized``, the same for y.
        """
        offset = np.array(self.offset[::-1], np.float64)
        ratio = np.array(self.source[::-1], np.float64) / np.array(self.resized[::-1], np.float64)
        return np.asarray((np.asarray(xy, np.float64) - offset) * ratio)

    @classmethod
    def of(
        cls,
        source: tuple[int, int],
        *,
        resize: int | tuple[int, int] | None,
        crop: tuple[int, int] | None,
        letterbox: Letterbox | None,
    ) -> Geometry:
        """The geometry of an image of size ``source`` (height, width).

        Raises:
            DataError: the crop is larger than the (resized) image, or that has over 2^26 pixels.
        """
        if letterbox is not None:
            return _letterboxed(source, letterbox)
        resized = _resized(source, resize)
        if resized[0] * resized[1] > MAX_PIXELS:
            raise DataError(
                f"resize makes {resized[0]} × {resized[1]} pixels of {source[0]} × {source[1]}, "
                f"expected at most {MAX_PIXELS}; remove the image or set resize: [height, width]"
            )
        if crop is None:
            return cls(source=source, resized=resized, offset=(0, 0), size=resized)
        if crop[0] > resized[0] or crop[1] > resized[1]:
            raise DataError(
                f"crop {list(crop)} is larger than the image, {list(resized)} (height, width) "
                "before it, expected one that fits inside; set resize to at least the crop"
            )
        # torchvision's CenterCrop rounds the margin half to even, and so does Python.
        top, left = (round((have - want) / 2) for have, want in zip(resized, crop, strict=True))
        return cls(source=source, resized=resized, offset=(-top, -left), size=crop)


def _resized(source: tuple[int, int], resize: int | tuple[int, int] | None) -> tuple[int, int]:
    """A short side keeps the aspect ratio; the long side is rounded down, as torchvision does."""
    if resize is None:
        return source
    if isinstance(resize, tuple):
        return resize
    height, width = source
    if height <= width:
        return resize, resize * width // height
    return resize * height // width, resize


def _letterboxed(source: tuple[int, int], letterbox: Letterbox) -> Geometry:
    (height, width), (tall, wide) = source, letterbox.size
    # The ratio is the smaller of tall / height and wide / width; integers keep it exact.
    if wide * height <= tall * width:
        exact, fixed = height * wide / width, wide
        resized = (_rounded(exact, letterbox.anchor), fixed)
    else:
        exact, fixed = width * tall / height, tall
        resized = (fixed, _rounded(exact, letterbox.anchor))
    offset = (0, 0)
    if letterbox.anchor == "centre":
        offset = ((tall - resized[0]) // 2, (wide - resized[1]) // 2)
    return Geometry(source=source, resized=resized, offset=offset, size=letterbox.size)


def _rounded(exact: float, anchor: str) -> int:
    return max(1, round(exact) if anchor == "centre" else int(exact))


def resample(
    image: Image.Image, size: tuple[int, int], *, interpolation: str, antialias: bool
) -> Image.Image:
    """Resize to ``size`` (height, width).

    With ``antialias`` the filter widens when shrinking (Pillow, torchvision on images); without,
    bilinear reads the four nearest pixels whatever the factor (OpenCV's INTER_LINEAR).
    """
    height, width = size
    if image.size == (width, height):
        return image
    if antialias or interpolation != "bilinear":
        return image.resize((width, height), INTERPOLATIONS[interpolation])
    return Image.fromarray(_bilinear(np.asarray(image), height, width))


def _bilinear(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """OpenCV's INTER_LINEAR for bytes, bit for bit: weights in 1/2048, its order of truncations.

    Source: VResizeLinear of OpenCV's modules/imgproc/src/resize.cpp; the tests hold its results.
    """
    (upper, lower, down), (left, right, across) = (
        _taps(have, want) for have, want in zip(pixels.shape[:2], (height, width), strict=True)
    )
    channels = pixels.size // (pixels.shape[0] * pixels.shape[1])
    lanes = np.arange(channels)
    left, right = ((index[:, None] * channels + lanes).ravel() for index in (left, right))
    across = np.repeat(across, channels)
    flat = pixels.reshape(pixels.shape[0], -1)
    result = np.empty((height, width * channels), np.uint8)

    def mixed(rows: NDArray[np.intp], weight: NDArray[np.int32]) -> NDArray[np.int32]:
        lines = flat.take(rows, 0)
        level: NDArray[np.int32] = lines.take(left, 1).astype(np.int32)
        step = lines.take(right, 1).astype(np.int32)
        step -= level
        step *= across
        level <<= 11
        level += step
        level >>= 4
        level *= weight[:, None]
        level >>= 16
        return level

    for start in range(0, height, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        total = mixed(upper[block], 2048 - down[block])
        total += mixed(lower[block], down[block])
        total += 2
        total >>= 2
        result[block] = total
    return result.reshape(height, width, *pixels.shape[2:])


def _taps(have: int, want: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int32]]:
    """For each output pixel: the two input pixels it lies between, and the second's weight."""
    centre = ((np.arange(want) + 0.5) * (have / want) - 0.5).astype(np.float32)
    first = np.floor(centre)
    weight = np.rint((centre - first) * np.float32(2048)).astype(np.int32)
    first = first.astype(np.intp)
    return first.clip(0, have - 1), (first + 1).clip(0, have - 1), weight
