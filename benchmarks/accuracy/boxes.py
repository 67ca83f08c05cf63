"""Boxes: decoding of raw detector outputs, non-maximum suppression, overlap.

Boxes are (n, 4) as x1, y1, x2, y2 in pixels of the network's input unless said otherwise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from artefacts.errors import DataError

__all__ = ["corners", "decode_yolov8", "decode_yolox", "iou", "suppress"]

Floats = npt.NDArray[np.float64]


def corners(boxes: Floats, box_format: str) -> Floats:
    """Any box format as x1, y1, x2, y2.

    Args:
        boxes: (n, 4).
        box_format: ``xyxy``, ``xywh`` (corner and size) or ``cxcywh`` (centre and size).
    """
    if box_format == "xyxy":
        return boxes
    first = boxes[:, :2] if box_format == "xywh" else boxes[:, :2] - boxes[:, 2:] / 2
    return np.concatenate([first, first + boxes[:, 2:]], axis=1)


def decode_yolox(
    raw: Floats, size: tuple[int, int], strides: tuple[int, ...]
) -> tuple[Floats, Floats]:
    """Boxes and class scores from a YOLOX head that leaves decoding to the caller.

    ``xy = (o[:2] + grid) * stride``, ``wh = exp(o[2:4]) * stride``, score = objectness * class,
    both already sigmoid (Megvii-BaseDetection/YOLOX, yolox/models/yolo_head.py, decode_outputs).

    Args:
        raw: (anchors, 5 + classes), anchors by stride, row by row.
        size: (height, width) of the network's input.
        strides: e.g. (8, 16, 32).

    Returns:
        Boxes (anchors, 4) and scores (anchors, classes).

    Raises:
        DataError: the number of anchors does not fit size and strides.
    """
    grids, steps = [], []
    for stride in strides:
        rows, columns = size[0] // stride, size[1] // stride
        y, x = np.divmod(np.arange(rows * columns), columns)
        grids.append(np.stack([x, y], axis=1))
        steps.append(np.full((rows * columns, 1), stride))
    grid, step = np.concatenate(grids), np.concatenate(steps)
    if len(grid) != len(raw) or raw.shape[1] < 6:
        raise DataError(
            f"detector output has shape {list(raw.shape)}, expected [{len(grid)}, 5 + classes] for "
            f"decode: yolox with an input of {size[0]}×{size[1]} and strides {list(strides)}; "
            "correct decode or strides in the task spec"
        )
    centres = (raw[:, :2] + grid) * step
    # A broken engine may give any number; e^20 strides is far outside every image already.
    sizes = np.exp(np.clip(raw[:, 2:4], -20, 20)) * step
    boxes = np.concatenate([centres, sizes], axis=1)
    return corners(boxes, "cxcywh"), raw[:, 4:5] * raw[:, 5:]


def decode_yolov8(raw: Floats) -> tuple[Floats, Floats]:
    """Boxes and class scores from an exported YOLOv8-style head: already decoded, no objectness.

    Args:
        raw: (4 + classes, anchors), rows cx, cy, w, h and one score per class.

    Returns:
        Boxes (anchors, 4) and scores (anchors, classes).

    Raises:
        DataError: fewer than 5 rows.
    """
    if raw.ndim != 2 or raw.shape[0] < 5:
        raise DataError(
            f"detector output has shape {list(raw.shape)}, expected [4 + classes, anchors] for "
            "decode: yolov8; correct decode in the task spec"
        )
    return corners(raw[:4].T, "cxcywh"), raw[4:].T


def iou(box: Floats, others: Floats) -> Floats:
    """Intersection over union of one box (4,) with others (n, 4): (n,)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - shared
    return np.asarray(shared / np.where(area > 0, area, 1.0))


def suppress(
    boxes: Floats, scores: Floats, classes: npt.NDArray[np.int64], threshold: float
) -> npt.NDArray[np.int64]:
    """Greedy non-maximum suppression within each class; indices that stay, best first.

    Args:
        boxes: (n, 4).
        scores: (n,).
        classes: (n,).
        threshold: a box that overlaps a better one of its class by more is dropped.
    """
    # Boxes of different classes are moved apart so that one pass treats each class alone.
    reach = float(np.max(np.abs(boxes), initial=0.0)) * 2 + 1
    apart = boxes + (classes * reach)[:, None]
    left = np.argsort(-scores, kind="stable")
    kept = []
    while left.size:
        kept.append(left[0])
        left = left[1:][iou(apart[left[0]], apart[left[1:]]) <= threshold]
    return np.array(kept, dtype=np.int64)
