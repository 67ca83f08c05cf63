from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artefacts.errors import DataError
from benchmarks.accuracy import DetectionTask, evaluate
from benchmarks.accuracy.boxes import corners, decode_yolov8, decode_yolox, iou, suppress
from benchmarks.accuracy.coco import CocoTruth, score_detections
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.data import Sample

LETTERBOX = {"letterbox": {"size": [64, 64], "anchor": "centre"}, "scale": 1}


def annotated(path: Path, boxes: list[list[tuple[int, list[float]]]], size: int = 100) -> Path:
    """COCO instances: per image its (category, [x, y, w, h])."""
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": size, "height": size}
            for i in range(len(boxes))
        ],
        "categories": [{"id": 10}, {"id": 20}, {"id": 30}],
        "annotations": [
            {"image_id": i, "category_id": category, "bbox": box}
            for i, entries in enumerate(boxes)
            for category, box in entries
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_box_formats_agree() -> None:
    expected = [[10.0, 20.0, 40.0, 60.0]]
    assert corners(np.array([[10.0, 20, 40, 60]]), "xyxy").tolist() == expected
    assert corners(np.array([[10.0, 20, 30, 40]]), "xywh").tolist() == expected
    assert corners(np.array([[25.0, 40, 30, 40]]), "cxcywh").tolist() == expected


def test_yolox_decoding_by_hand() -> None:
    # Input 16×16, stride 8: four anchors, row by row; the third is column 0 of row 1.
    raw = np.zeros((4, 7))
    raw[2] = [0.5, 0.25, np.log(2), 0.0, 0.5, 0.8, 0.1]
    boxes, scores = decode_yolox(raw, (16, 16), (8,))
    # centre (0.5 · 8, 1.25 · 8), size (16, 8)
    assert boxes[2] == pytest.approx([4 - 8, 10 - 4, 4 + 8, 10 + 4])
    assert scores[2] == pytest.approx([0.4, 0.05])


def test_yolov8_decoding_by_hand() -> None:
    raw = np.array([[25.0, 0], [40, 0], [30, 0], [40, 0], [0.9, 0], [0.2, 0]])
    boxes, scores = decode_yolov8(raw)
    assert boxes[0].tolist() == [10, 20, 40, 60]
    assert scores[0].tolist() == [0.9, 0.2]


@pytest.mark.parametrize("shape", [(5, 7), (4, 5)])
def test_outputs_of_another_detector_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=rf"\[{shape[0]}, {shape[1]}\], expected \[4, 5"):
        decode_yolox(np.zeros(shape), (16, 16), (8,))


box = st.tuples(*[st.floats(-50, 50)] * 2, *[st.floats(0.1, 50)] * 2)


@given(st.lists(st.tuples(box, st.floats(0, 1), st.integers(0, 2)), min_size=1, max_size=25))
def test_suppression_keeps_no_two_that_overlap(entries: list[Any]) -> None:
    boxes = corners(np.array([entry[0] for entry in entries]), "xywh")
    scores = np.array([entry[1] for entry in entries])
    classes = np.array([entry[2] for entry in entries])
    kept = suppress(boxes, scores, classes, 0.5)
    assert scores[kept].tolist() == sorted(scores[kept], reverse=True)
    for at, index in enumerate(kept):
        same = [other for other in kept[:at] if classes[other] == classes[index]]
        assert all(iou(boxes[index], boxes[[other]])[0] <= 0.5 + 1e-9 for other in same)
    for index in set(range(len(entries))) - set(kept.tolist()):
        better = [k for k in kept if classes[k] == classes[index] and scores[k] >= scores[index]]
        assert any(iou(boxes[index], boxes[[k]])[0] > 0.5 - 1e-9 for k in better)


def plain(boxes: np.ndarray[Any, Any], scores: list[float], classes: list[int]) -> Any:
    return lambda inputs: {
        "boxes": np.float32(boxes)[None],
        "scores": np.float32(scores)[None],
        "classes": np.float32(classes)[None],
    }


def test_boxes_come_back_through_the_letterbox(tmp_path: Path) -> None:
    # A 100×50 image in 64×64: scaled by 0.64 to 64×32, 16 rows above.
    truth = annotated(tmp_path / "boxes.json", [[(20, [10, 5, 50, 25])]])
    spec = Preprocess.from_dict(LETTERBOX)
    sample = Sample(
        inputs={"x": np.zeros((1, 3, 64, 64), np.float32)}, name="0.png", size=(50, 100)
    )
    in_network = np.array([[6.4, 16 + 3.2, 38.4, 16 + 19.2]])
    system = plain(in_network, [0.9], [1])
    task = DetectionTask(annotations=truth, decode="boxes", preprocess=spec)
    found = task.detect(system({}), sample)
    assert found.boxes[0] == pytest.approx([10, 5, 60, 30], abs=1e-4)
    assert evaluate(system, [sample], task).figures["map"] == pytest.approx(1.0)
    shares = plain(in_network / 64, [0.9], [20])
    by_id = DetectionTask(
        annotations=truth, decode="boxes", normalized=True, classes_are_ids=True, preprocess=spec
    )
    assert evaluate(shares, [sample], by_id).value == pytest.approx(1.0)


def test_a_class_the_annotations_lack_is_refused(tmp_path: Path) -> None:
    truth = annotated(tmp_path / "boxes.json", [[(20, [10, 5, 50, 25])]])
    task = DetectionTask(
        annotations=truth, decode="boxes", preprocess=Preprocess.from_dict(LETTERBOX)
    )
    sample = Sample(inputs={"x": np.zeros((1, 3, 64, 64))}, name="0.png", size=(50, 100))
    with pytest.raises(DataError, match="class 7, expected 0 to 2"):
        evaluate(plain(np.array([[0.0, 0, 9, 9]]), [0.9], [7]), [sample], task)
    stranger = Sample(inputs=sample.inputs, name="dog.png", size=(50, 100))
    with pytest.raises(DataError, match=r"dog\.png is not among the 1 images"):
        evaluate(plain(np.array([[0.0, 0, 9, 9]]), [0.9], [1]), [stranger], task)
    array = Sample(inputs=sample.inputs, name="0.png")
    with pytest.raises(DataError, match="no image size"):
        evaluate(plain(np.array([[0.0, 0, 9, 9]]), [0.9], [1]), [array], task)


def test_a_detector_gone_mad_scores_zero(tmp_path: Path) -> None:
    truth = annotated(tmp_path / "boxes.json", [[(20, [10, 5, 50, 25])]])
    task = DetectionTask(
        annotations=truth, strides=(32,), preprocess=Preprocess.from_dict(LETTERBOX)
    )
    sample = Sample(inputs={"x": np.zeros((1, 3, 64, 64))}, name="0.png", size=(50, 100))
    for bad in (np.nan, np.inf, 1e30, -1.0):
        raw = np.full((1, 4, 8), bad)
        found = evaluate(lambda inputs, raw=raw: {"y": raw}, [sample], task)  # type: ignore[misc]
        assert found.value == 0.0


@pytest.mark.parametrize("text", ["[]", "{}", "nonsense", '{"images": [{"id": 1}]}'])
def test_annotations_of_another_kind_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match="are not COCO instances"):
        CocoTruth.read(tmp_path / "a.json")


def test_drawing_every_image_once_gives_pycocotools_figure(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    pytest.importorskip("pycocotools")
    from benchmarks.accuracy import coco

    images = 12
    truths = [
        [
            (int(rng.choice([10, 20, 30])), [*rng.uniform(0, 60, 2), *rng.uniform(10, 40, 2)])
            for _ in range(rng.integers(0, 6))
        ]
        for _ in range(images)
    ]
    truth = CocoTruth.read(annotated(tmp_path / "boxes.json", truths))
    found = {}
    for image, entries in enumerate(truths):
        near = [np.array(box) + rng.normal(0, 3, 4) for _, box in entries]
        noise = [np.array([*rng.uniform(0, 60, 2), *rng.uniform(5, 40, 2)]) for _ in range(4)]
        boxes = corners(np.abs(np.array(near + noise)), "xywh")
        categories = np.array([c for c, _ in entries] + rng.choice([10, 20, 30], 4).tolist())
        found[image] = (boxes, rng.random(len(boxes)), categories)
    result = score_detections(truth, found)
    rows = [row for image in found for row in coco._rows(image, *found[image])]
    evaluation = coco._evaluate(truth, rows, sorted(found))
    once = coco._resampled(evaluation, np.ones((1, images), dtype=np.int64))
    assert once[0] == pytest.approx(result.value, abs=1e-9)
    # Drawing images twice is evaluating the doubled set.
    draw = rng.multinomial(images, np.full(images, 1 / images))
    doubled_truths = [truths[i] for i in range(images) for _ in range(draw[i])]
    doubled = CocoTruth.read(annotated(tmp_path / "twice.json", doubled_truths))
    chosen = [i for i in range(images) for _ in range(draw[i])]
    again = score_detections(doubled, {new: found[old] for new, old in enumerate(chosen)})
    drawn = coco._resampled(evaluation, draw[None])
    assert drawn[0] == pytest.approx(again.value, abs=1e-9)
