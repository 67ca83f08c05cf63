"""Images as cameras and scanners give them: crops of two photographs, and lines of print."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["IMAGENET", "Pixels", "page", "photo", "planes", "word"]

Pixels = NDArray[np.float32]
IMAGENET = ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))
"""Mean and standard deviation of its colours, 0 to 255."""
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHKLMNPRSTUVWXYZ0123456789"


@cache
def _photographs() -> tuple[NDArray[np.uint8], ...]:
    """A temple and a flower, 427 × 640, which scikit-learn ships."""
    from sklearn.datasets import load_sample_images

    return tuple(load_sample_images().images)


def photo(generator: np.random.Generator, height: int, width: int) -> Pixels:
    """A crop of a photograph, scaled to a size: (H, W, 3), 0 to 255.

    Mirrored, lighter or darker, so that no two are alike.
    """
    whole = _photographs()[generator.integers(2)]
    side = int(generator.integers(120, min(whole.shape[:2])))
    top = generator.integers(whole.shape[0] - side + 1)
    left = generator.integers(whole.shape[1] - side + 1)
    crop = whole[top : top + side, left : left + side]
    if generator.integers(2):
        crop = crop[:, ::-1]
    small = Image.fromarray(crop).resize((width, height), Image.Resampling.BILINEAR)
    light = generator.uniform(0.6, 1.3)
    return np.asarray(np.clip(np.asarray(small, np.float32) * light, 0, 255), np.float32)


def word(generator: np.random.Generator, height: int, width: int, *, tilt: float = 0) -> Pixels:
    """Some letters in print on paper that is not quite white: (H, W, 3), 0 to 255."""
    paper, ink = (int(generator.integers(low, low + 60)) for low in (195, 0))
    image = Image.new("L", (width, height), paper)
    size = int(height * generator.uniform(0.55, 0.75))
    text = "".join(generator.choice(list(_LETTERS), int(generator.integers(4, 14))))
    place = (int(generator.integers(2, 10)), int(height * 0.1))
    ImageDraw.Draw(image).text(place, text, fill=ink, font=ImageFont.load_default(size))
    image = image.rotate(generator.uniform(-tilt, tilt), fillcolor=paper)
    return _grained(generator, image)


def page(generator: np.random.Generator, height: int, width: int) -> Pixels:
    """Lines of print, some of them on a photograph: (H, W, 3), 0 to 255."""
    image = photo(generator, height, width) if generator.integers(2) else None
    paper = Image.new("L", (width, height), 235)
    draw, top = ImageDraw.Draw(paper), 8
    while top < height - 12:
        size = int(generator.integers(10, max(12, height // 10)))
        text = "".join(generator.choice([*_LETTERS, " ", " "], 60))
        draw.text((6, top), text, fill=20, font=ImageFont.load_default(size))
        top += int(size * 1.6)
    print_ = _grained(generator, paper)
    return print_ if image is None else np.where(print_ < 128, print_, image).astype(np.float32)


def planes(pixels: Pixels, mean: object = 0.0, std: object = 255.0) -> Pixels:
    """``(pixels - mean) / std`` as (1, 3, H, W), mean and std in units of 0 to 255."""
    values = (pixels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(np.moveaxis(values, -1, 0)[None], np.float32)


def _grained(generator: np.random.Generator, image: Image.Image) -> Pixels:
    grey = np.asarray(image, np.float32) + generator.normal(0, 4, (image.height, image.width))
    return np.repeat(np.clip(grey, 0, 255)[..., None], 3, axis=-1).astype(np.float32)
