"""Object detection: raw outputs to boxes in the image, scored as COCO does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from artefacts.errors import DataError
from benchmarks.accuracy.boxes import corners, decode_yolov8, decode_yolox, suppress
from benchmarks.accuracy.coco import CocoTruth, score_detections
from benchmarks.accuracy.result import AccuracyResult, Arrays, only_output
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.data import Sample

__all__ = ["DetectionTask", "Detections"]

Floats = npt.NDArray[np.float64]
DECODERS = ("yolox", "yolov8", "boxes")
FORMATS = ("xyxy", "xywh", "cxcywh")
CANDIDATES = 2000  # best boxes of an image that suppression looks at; it is quadratic


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Boxes of one image: (n, 4) as x1, y1, x2, y2 in its pixels, scores (n,), classes (n,)."""

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class DetectionTask:
    """A detector and how its outputs become boxes.

    Attributes:
        annotations: COCO instances JSON; images are matched by file name.
        decode: ``yolox`` (raw head), ``yolov8`` (decoded, no objectness) or ``boxes`` (three
            outputs: boxes, scores, classes).
        output: the output of ``yolox`` and ``yolov8``; None for the only one.
        boxes: output with (1, n, 4), for ``decode: boxes``.
        scores: output with (1, n).
        classes: output with (1, n).
        strides: of ``yolox``.
        box_format: of ``boxes``: ``xyxy``, ``xywh`` or ``cxcywh``.
        normalized: whether ``boxes`` are shares of the network's input.
        classes_are_ids: whether the model's classes are COCO category ids; else class i is the
            i-th category by id.
        score_threshold: boxes below are dropped; small, since mAP counts the whole curve.
        iou_threshold: of the suppression within a class; null for none.
        max_detections: best boxes kept per image.
        preprocess: how images became inputs, to map boxes back; set by the program.
    """

    annotations: Path
    decode: str = "yolox"
    output: str | None = None
    boxes: str = "boxes"
    scores: str = "scores"
    classes: str = "classes"
    strides: tuple[int, ...] = (8, 16, 32)
    box_format: str = "xyxy"
    normalized: bool = False
    classes_are_ids: bool = False
    score_threshold: float = 0.001
    iou_threshold: float | None = 0.65
    max_detections: int = 100
    preprocess: Preprocess | None = field(default=None, metadata={"key": False})

    def __post_init__(self) -> None:
        for name, known in (("decode", DECODERS), ("box_format", FORMATS)):
            if getattr(self, name) not in known:
                raise DataError(
                    f"detection task has {name}: {getattr(self, name)!r}, expected one of "
                    f"{', '.join(known)}; correct it"
                )
        for name in ("score_threshold", "iou_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise DataError(f"detection task has {name}: {value}, expected 0 to 1; correct it")
        if self.max_detections < 1 or not self.strides or min(self.strides) < 1:
            raise DataError(
                f"detection task has max_detections: {self.max_detections} and strides: "
                f"{list(self.strides)}, expected numbers of at least 1; correct them"
            )

    def scorer(self) -> _DetectionScorer:
        """A fresh scorer.

        Raises:
            DataError: the annotations cannot be used, or the preprocessing is unknown.
        """
        return _DetectionScorer(self)

    def detect(self, outputs: Arrays, sample: Sample) -> Detections:
        """The boxes of one image, in its pixels, best first.

        Raises:
            DataError: outputs that do not fit the task, or a sample that is no image.
        """
        if self.preprocess is None or sample.size is None:
            raise DataError(
                f"sample {sample.name} has no image size or preprocessing spec, expected both to "
                "map boxes back to the image; give an image folder and --preprocess"
            )
        geometry = self.preprocess.geometry(*sample.size)
        found = self._decoded(outputs, geometry.size)
        found = _suppressed(_strongest(found, self.score_threshold), self.iou_threshold)
        corners_xy = geometry.to_source(found.boxes.reshape(-1, 2, 2))
        height, width = sample.size
        return Detections(
            boxes=np.clip(corners_xy, 0, [width, height]).reshape(-1, 4)[: self.max_detections],
            scores=found.scores[: self.max_detections],
            classes=found.classes[: self.max_detections],
        )

    def _decoded(self, outputs: Arrays, size: tuple[int, int]) -> Detections:
        """Boxes in pixels of the network's input, each with its best class."""
        if self.decode == "boxes":
            return self._plain(outputs, size)
        raw = np.asarray(only_output(outputs, self.output, "detection"), np.float64)[0]
        if self.decode == "yolox":
            boxes, scores = decode_yolox(raw, size, self.strides)
        else:
            boxes, scores = decode_yolov8(raw)
        return Detections(boxes=boxes, scores=scores.max(axis=1), classes=scores.argmax(axis=1))

    def _plain(self, outputs: Arrays, size: tuple[int, int]) -> Detections:
        """Three outputs that need no decoding but their box format."""
        boxes, scores, classes = (
            np.asarray(only_output(outputs, name, "detection"), np.float64)[0]
            for name in (self.boxes, self.scores, self.classes)
        )
        if boxes.shape != (scores.size, 4) or classes.shape != scores.shape:
            raise DataError(
                f"detector outputs have shapes {list(boxes.shape)}, {list(scores.shape)} and "
                f"{list(classes.shape)}, expected [n, 4], [n] and [n]; name the right outputs"
            )
        scale = np.array([size[1], size[0]] * 2, np.float64) if self.normalized else 1.0
        return Detections(
            boxes=corners(boxes * scale, self.box_format),
            scores=scores,
            classes=classes.astype(np.int64),
        )


class _DetectionScorer:
    def __init__(self, task: DetectionTask) -> None:
        self._task = task
        self._truth = CocoTruth.read(task.annotations)
        self._found: dict[int, Detections] = {}

    def add(self, outputs: Arrays, sample: Sample) -> None:
        image = self._truth.image_id(sample.name)
        self._found[image] = self._task.detect(outputs, sample)

    def result(self) -> AccuracyResult:
        return score_detections(
            self._truth,
            {
                image: (found.boxes, found.scores, self._categories(found.classes))
                for image, found in self._found.items()
            },
        )

    def _categories(self, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """COCO category ids of the model's classes."""
        if self._task.classes_are_ids or not classes.size:
            return classes
        known = np.array(self._truth.categories)
        if classes.max() >= known.size or classes.min() < 0:
            raise DataError(
                f"detector gives class {classes.max()}, expected 0 to {known.size - 1} for the "
                f"{known.size} categories of the annotations; check model and annotations"
            )
        return np.asarray(known[classes])


def _strongest(found: Detections, threshold: float) -> Detections:
    """Boxes above the threshold, best first, at most ``CANDIDATES``; NaN scores are none."""
    order = np.argsort(-np.nan_to_num(found.scores, nan=-1.0), kind="stable")[:CANDIDATES]
    order = order[found.scores[order] > threshold]
    order = order[np.all(np.isfinite(found.boxes[order]), axis=1)]
    return Detections(
        boxes=found.boxes[order], scores=found.scores[order], classes=found.classes[order]
    )


def _suppressed(found: Detections, threshold: float | None) -> Detections:
    """Without boxes that overlap a better one of their class."""
    if threshold is None:
        return found
    kept = suppress(found.boxes, found.scores, found.classes, threshold)
    return Detections(
        boxes=found.boxes[kept], scores=found.scores[kept], classes=found.classes[kept]
    )
