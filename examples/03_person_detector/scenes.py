"""Rendered pictures of people in front of clutter, with a box around each: no photographs.

Every picture follows from its split and number alone, so all machines render the same ones.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["SIZE", "render", "write_coco"]

SIZE = 128
SCALE = 2  # drawn twice as large, then averaged down: soft edges
SPLITS = ("train", "calibration", "test")
SKIN = [(241, 194, 165), (224, 172, 105), (198, 134, 66), (141, 85, 36), (92, 56, 30)]
Box = tuple[float, float, float, float]  # x1, y1, x2, y2


def render(split: str, index: int) -> tuple[Image.Image, list[Box]]:
    """Picture ``index`` of a split, RGB (SIZE, SIZE), and the boxes of the people in it."""
    rng = np.random.default_rng([SPLITS.index(split), index])
    canvas = _background(rng)
    boxes = []
    for _ in range(rng.integers(0, 5)):
        figure, mask = _person(rng)
        box = mask.getbbox()
        if box is None or any(_overlap(box, other) > 0.3 for other in boxes):
            continue
        canvas.paste(figure, (0, 0), mask)
        boxes.append(box)
    for _ in range(rng.integers(0, 3)):  # in front of everybody
        _pole(ImageDraw.Draw(canvas), rng)
    picture = np.asarray(canvas.resize((SIZE, SIZE), Image.BOX), np.float64)
    noise = rng.normal(0, rng.uniform(2, 14), picture.shape)
    picture = np.clip(picture * rng.uniform(0.6, 1.1) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(picture), [tuple(v / SCALE for v in box) for box in boxes]


def write_coco(folder: Path, split: str, count: int) -> None:
    """A folder of PNG files, and beside it their boxes as COCO instances JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index in range(count):
        picture, boxes = render(split, index)
        name = f"{index:04d}.png"
        picture.save(folder / name)
        images.append({"id": index, "file_name": name, "width": SIZE, "height": SIZE})
        for x1, y1, x2, y2 in boxes:
            sides = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": 1,
                    "bbox": sides,
                    "area": sides[2] * sides[3],
                    "iscrowd": 0,
                }
            )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    folder.with_suffix(".json").write_text(json.dumps(content))


def _overlap(a: Box, b: Box) -> float:
    """Intersection over the smaller box."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return max(width, 0) * max(height, 0) / min(areas)


def _color(rng: np.random.Generator) -> tuple[int, int, int]:
    return tuple(int(v) for v in rng.integers(20, 236, 3))


def _background(rng: np.random.Generator) -> Image.Image:
    """A gradient with boxes, blobs, lines, and posts with balls that are nearly people."""
    side = SIZE * SCALE
    low, high = (np.array(_color(rng), np.float64) for _ in range(2))
    ramp = np.linspace(0, 1, side)[:, None, None]
    gradient = np.broadcast_to(low * (1 - ramp) + high * ramp, (side, side, 3))
    canvas = Image.fromarray(gradient.astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(6, 20)):
        x, y = rng.uniform(0, side, 2)
        width, height = rng.uniform(8, side / 3, 2)
        box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        kind = rng.integers(4)
        if kind == 0:
            draw.rectangle(box, fill=_color(rng))
        elif kind == 1:
            draw.ellipse(box, fill=_color(rng))
        elif kind == 2:
            points = rng.uniform([x, y], [x + width, y + height], (3, 2))
            draw.polygon([tuple(point) for point in points], fill=_color(rng))
        else:
            draw.line(box, fill=_color(rng), width=int(rng.integers(2, 14)))
    for _ in range(rng.integers(0, 4)):
        _pole(draw, rng)
    return canvas


def _pole(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """A post with a ball on top, as tall as a person: what a detector must tell apart."""
    side = SIZE * SCALE
    height = rng.uniform(0.15, 0.6) * side
    x, foot = rng.uniform(0, side), rng.uniform(0.4, 1.1) * side
    width, ball = rng.uniform(0.03, 0.15) * height, rng.uniform(0.06, 0.12) * height
    draw.rectangle([x - width, foot - height, x + width, foot], fill=_color(rng))
    top = foot - height
    draw.ellipse([x - ball, top - 2 * ball, x + ball, top], fill=_color(rng))


def _person(rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """Head, trunk, arms and legs in a random pose: colours and the mask of what is drawn."""
    side = SIZE * SCALE
    height = math.exp(rng.uniform(math.log(0.18), math.log(0.85))) * side
    x = rng.uniform(0.03, 0.97) * side
    foot = rng.uniform(0.35, 1.1) * side
    if foot - height > 0.85 * side:
        foot = 0.8 * side + height
    skin, shirt, trousers = SKIN[rng.integers(len(SKIN))], _color(rng), _color(rng)
    figure, mask = Image.new("RGB", (side, side)), Image.new("L", (side, side))
    pens = ImageDraw.Draw(figure), ImageDraw.Draw(mask)

    def limb(x: float, y: float, angle: float, length: float, width: float, fill: object) -> None:
        end = (x + length * math.sin(angle), y + length * math.cos(angle))
        for pen, color in zip(pens, (fill, 255), strict=True):
            pen.line([(x, y), end], fill=color, width=max(2, round(width)))
            for cx, cy in ((x, y), end):
                pen.ellipse(
                    [cx - width / 2, cy - width / 2, cx + width / 2, cy + width / 2], fill=color
                )

    hip, shoulder = foot - 0.47 * height, foot - 0.80 * height
    wide = rng.uniform(0.11, 0.16) * height
    stride = rng.uniform(0.02, 0.45)
    for sign in (-1, 1):
        limb(x + sign * 0.35 * wide, hip, sign * stride, 0.45 * height, 0.09 * height, trousers)
    for sign in (-1, 1):
        swing = sign * rng.uniform(0.1, 1.4)
        limb(x + sign * 0.8 * wide, shoulder, swing, 0.33 * height, 0.06 * height, shirt)
    head = rng.uniform(0.06, 0.075) * height
    top = shoulder - 0.04 * height - 2 * head
    for pen, colors in zip(pens, ((shirt, skin), (255, 255)), strict=True):
        corners = [x - wide, shoulder - 0.03 * height, x + wide, hip + 0.04 * height]
        pen.rounded_rectangle(corners, radius=0.05 * height, fill=colors[0])
        pen.ellipse([x - head, top, x + head, top + 2.1 * head], fill=colors[1])
    pens[0].pieslice([x - head, top, x + head, top + 2 * head], 180, 360, fill=_color(rng))
    return figure, mask
