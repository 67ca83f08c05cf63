"""COCO's average precision by pycocotools, and its bootstrap over images."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from artefacts.documents import parse_json
from artefacts.errors import DataError
from artefacts.faults import DAMAGED
from artefacts.files import read_bounded
from artefacts.libraries import require
from artefacts.texts import shortened
from benchmarks.accuracy.result import AccuracyResult
from benchmarks.statistics.bootstrap import draw_rounds

__all__ = ["CocoTruth", "score_detections"]

Floats = npt.NDArray[np.float64]
Found = tuple[Floats, Floats, npt.NDArray[np.int64]]
LIMIT_BYTES = 1 << 30
RESAMPLES = 200  # of images: each one is a whole evaluation
# COCOeval.summarize's order of figures.
FIGURES = {
    0: "map",
    1: "map50",
    2: "map75",
    3: "map_small",
    4: "map_medium",
    5: "map_large",
    8: "ar100",
}


@dataclass(frozen=True, kw_only=True)
class CocoTruth:
    """Annotations in COCO's instances format.

    Attributes:
        content: the JSON.
        images: file name → image id.
        categories: category ids, ascending.
    """

    content: Mapping[str, Any]
    images: Mapping[str, int]
    categories: tuple[int, ...]

    @classmethod
    def read(cls, path: Path) -> CocoTruth:
        """Read and check an annotation file.

        Raises:
            DataError: not COCO's format.
            InputError: no such file, or larger than 1 GiB.
        """
        raw = read_bounded(path, limit_bytes=LIMIT_BYTES, what="annotations")
        try:
            content = parse_json(raw)
            images = {str(image["file_name"]): int(image["id"]) for image in content["images"]}
            categories = tuple(sorted(int(entry["id"]) for entry in content["categories"]))
            for box in content["annotations"]:
                _ = int(box["image_id"]), int(box["category_id"]), [float(v) for v in box["bbox"]]
        except DAMAGED as err:
            why = shortened(f"{type(err).__name__}: {err}")
            raise DataError(
                f"annotations {path} are not COCO instances ({why}), "
                "expected JSON with images, annotations and categories; convert them"
            ) from err
        return cls(content=content, images=images, categories=categories)

    def image_id(self, name: str) -> int:
        """The id of a sample's image.

        Raises:
            DataError: the annotations do not know it.
        """
        found = self.images.get(name, self.images.get(Path(name).name))
        if found is None:
            raise DataError(
                f"sample {name} is not among the {len(self.images)} images of the annotations, "
                "expected its file name there; give the matching annotations"
            )
        return found


def score_detections(truth: CocoTruth, found: Mapping[int, Found]) -> AccuracyResult:
    """Average precision over the images of ``found``.

    Args:
        truth: the annotations.
        found: image id → boxes (n, 4) as x1, y1, x2, y2 in pixels, scores (n,), category ids (n,).
    """
    images = sorted(found)
    rows = [row for image in images for row in _rows(image, *found[image])]
    if not rows:
        # COCOeval refuses an empty list; a detector that finds nothing has precision 0.
        nothing = dict.fromkeys(FIGURES.values(), 0.0)
        return AccuracyResult(
            metric="map", figures=nothing, samples=len(images), resampled=np.zeros(RESAMPLES)
        )
    evaluation = _evaluate(truth, rows, images)
    stats = {name: float(evaluation.stats[index]) for index, name in FIGURES.items()}
    return AccuracyResult(
        metric="map",
        # -1 is COCO's word for "no such objects".
        figures={name: value for name, value in stats.items() if value >= 0},
        samples=len(images),
        resampled=_resampled(evaluation, draw_rounds(len(images), RESAMPLES)),
    )


def _rows(
    image: int, boxes: Floats, scores: Floats, categories: npt.NDArray[np.int64]
) -> list[dict[str, Any]]:
    """COCO's result format: boxes as x, y, width, height."""
    sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return [
        {"image_id": image, "category_id": int(category), "bbox": box, "score": float(score)}
        for box, score, category in zip(sizes.tolist(), scores, categories, strict=True)
    ]


def _evaluate(truth: CocoTruth, rows: list[dict[str, Any]], images: list[int]) -> Any:
    """A finished COCOeval; what it prints is dropped."""
    coco_api = require("pycocotools.coco", extra="bench")
    coco_eval = require("pycocotools.cocoeval", extra="bench")
    with contextlib.redirect_stdout(io.StringIO()):
        known = coco_api.COCO()
        known.dataset = {
            **truth.content,
            "annotations": [
                {"id": number, "iscrowd": 0, "area": box["bbox"][2] * box["bbox"][3], **box}
                for number, box in enumerate(truth.content["annotations"], start=1)
            ],
        }
        known.createIndex()
        evaluation = coco_eval.COCOeval(known, known.loadRes(rows), "bbox")
        evaluation.params.imgIds = images
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _resampled(evaluation: Any, draws: npt.NDArray[np.int64]) -> Floats:
    """Mean average precision for each draw of the images (resamples,).

    The accumulation of COCOeval with a weight per image: matches do not change when an image is
    drawn twice, only how often they count.
    """
    images = len(evaluation.params.imgIds)
    areas = len(evaluation.params.areaRng)
    total, present = np.zeros(len(draws)), np.zeros(len(draws))
    for category in range(len(evaluation.params.catIds)):
        start = category * areas * images  # area range 0 is "all"
        precision, has = _category(
            evaluation.evalImgs[start : start + images], evaluation.params.recThrs, draws
        )
        total += np.where(has, precision, 0.0)
        present += has
    return np.asarray(total / np.maximum(present, 1))


def _category(
    entries: list[Any], recalls: Floats, draws: npt.NDArray[np.int64]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """One category's average precision over all thresholds, and whether a draw has its objects."""
    filled = [(number, entry) for number, entry in enumerate(entries) if entry is not None]
    objects = np.zeros(len(entries))
    for number, entry in filled:
        objects[number] = np.sum(~np.asarray(entry["gtIgnore"], dtype=bool))
    wanted = draws @ objects
    if not filled or not objects.any():
        return np.zeros(len(draws)), np.zeros(len(draws), dtype=bool)
    owner = np.concatenate([np.full(len(e["dtScores"]), n) for n, e in filled])
    order = np.argsort(-np.concatenate([e["dtScores"] for _, e in filled]), kind="mergesort")
    matches = np.concatenate([e["dtMatches"] for _, e in filled], axis=1)[:, order] > 0
    counted = ~np.concatenate([e["dtIgnore"] for _, e in filled], axis=1)[:, order].astype(bool)
    owner = owner[order].astype(np.int64)
    found = np.array(
        [
            _average_precision(matches & counted, ~matches & counted, draw[owner], want, recalls)
            if want
            else 0.0
            for draw, want in zip(draws, wanted, strict=True)
        ]
    )
    return found, wanted > 0


def _average_precision(
    right: npt.NDArray[np.bool_],
    wrong: npt.NDArray[np.bool_],
    weight: npt.NDArray[np.int64],
    objects: float,
    recalls: Floats,
) -> float:
    """Mean over IoU thresholds of the 101-point interpolated precision; (thresholds, n) each."""
    if not weight.size:
        return 0.0
    hits, misses = np.cumsum(right * weight, axis=1), np.cumsum(wrong * weight, axis=1)
    precision = hits / np.maximum(hits + misses, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = 0.0
    for recall, best in zip(hits / objects, envelope, strict=True):
        places = np.searchsorted(recall, recalls, side="left")
        total += float(np.sum(best[places[places < best.size]])) / recalls.size
    return total / len(right)
