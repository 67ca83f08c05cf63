from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artefacts.errors import DataError, RequestError
from benchmarks.accuracy import (
    AccuracyResult,
    ClassificationTask,
    CustomTask,
    RegressionTask,
    SegmentationTask,
    compare_accuracy,
    evaluate,
    evaluate_all,
    read_task,
)
from benchmarks.accuracy.agreement import AgreementScorer
from calibrators.samples.data import InputSpec, Sample

Arrays = dict[str, np.ndarray[Any, Any]]


def samples_of(inputs: np.ndarray[Any, Any], labels: Any) -> list[Sample]:
    return [
        Sample(inputs={"x": row[None].astype(np.float32)}, name=f"s{i}", label=label)
        for i, (row, label) in enumerate(zip(inputs, labels, strict=True))
    ]


def identity(inputs: Arrays) -> Arrays:
    return {"y": inputs["x"]}


def test_top1_and_top5_by_hand() -> None:
    scores = np.array([[9, 1, 2, 3, 4, 5, 6], [1, 9, 8, 7, 6, 5, 4], [7, 6, 5, 4, 3, 2, 1]])
    found = evaluate(identity, samples_of(scores, [0, 5, 6]))
    assert found.metric == "top1"
    assert found.figures == pytest.approx({"top1": 1 / 3, "top5": 2 / 3})
    assert found.per_sample.tolist() == [1, 0, 0]


def test_a_network_that_answers_the_same_for_all_classes_knows_nothing() -> None:
    found = evaluate(identity, samples_of(np.zeros((4, 10)), range(4)))
    assert found.figures == {"top1": 0.0, "top5": 0.0}


def test_nan_is_wrong() -> None:
    found = evaluate(identity, samples_of(np.full((2, 10), np.nan), [0, 1]))
    assert found.figures == {"top1": 0.0, "top5": 0.0}


@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_the_batch_size_changes_nothing(size: int, rng: np.random.Generator) -> None:
    scores, labels = rng.normal(size=(20, 12)), rng.integers(0, 12, 20)
    alone = evaluate(identity, samples_of(scores, labels.tolist()))
    found = evaluate(identity, samples_of(scores, labels.tolist()), batch_size=size)
    assert found.figures == alone.figures
    assert found.per_sample.tolist() == alone.per_sample.tolist()


def test_rows_that_fill_a_static_batch_do_not_count(rng: np.random.Generator) -> None:
    seen: list[int] = []

    def fixed(inputs: Arrays) -> Arrays:
        seen.append(len(inputs["x"]))
        return {"y": inputs["x"]}

    spec = InputSpec(name="x", dtype=np.dtype(np.float32), shape=(4, 5))
    found = evaluate(fixed, samples_of(np.eye(5)[[0, 1, 2, 3, 4]], range(5)), inputs=[spec])
    assert seen == [4, 4]
    assert found.samples == 5
    assert found.figures["top1"] == 1.0


def test_labels_can_be_offset_by_a_background_class() -> None:
    task = ClassificationTask(label_offset=1)
    assert evaluate(identity, samples_of(np.eye(5)[1:], range(4)), task).value == 1.0


@pytest.mark.parametrize(
    ("label", "said"),
    [(7, "class 7, expected 0 to 4"), (None, "no label"), (np.zeros(3), "3 values")],
)
def test_labels_that_do_not_fit_are_refused(label: Any, said: str) -> None:
    with pytest.raises(DataError, match=f"sample s0.*{said}"):
        evaluate(identity, samples_of(np.eye(5)[:1], [label]))


def test_several_outputs_need_a_name() -> None:
    def two(inputs: Arrays) -> Arrays:
        return {"a": inputs["x"], "b": -inputs["x"]}

    data = samples_of(np.eye(5), range(5))
    with pytest.raises(DataError, match=r"reads output None, expected one of \['a', 'b'\]"):
        evaluate(two, data)
    assert evaluate(two, data, ClassificationTask(output="a")).value == 1.0


def test_no_samples_are_refused() -> None:
    with pytest.raises(DataError, match="0 samples"):
        evaluate(identity, [])


def test_agreement_by_hand() -> None:
    data = samples_of(np.array([[3.0, 4.0], [0.0, 2.0]]), [0, 1])

    def half(inputs: Arrays) -> Arrays:
        return {"y": inputs["x"] * np.float32(0.5)}

    found = evaluate_all({"ref": identity, "half": half}, data, reference="ref", labelled=False)
    assert found["ref"].agreement is None
    assert found["half"].metric == ""
    agreement = found["half"].agreement
    assert agreement is not None
    assert agreement.reference == "ref"
    assert agreement.top1 == 1.0
    # noise is half the signal: 10 log10(1 / 0.25)
    assert agreement.outputs["y"].sqnr_db == pytest.approx(6.0206, abs=1e-4)
    assert agreement.outputs["y"].cosine == pytest.approx(1.0)
    assert agreement.outputs["y"].max_abs_error == 2.0


def test_equal_outputs_have_no_noise_to_state(rng: np.random.Generator) -> None:
    data = samples_of(rng.normal(size=(5, 4)), [None] * 5)
    found = evaluate_all({"a": identity, "b": identity}, data, reference="a", labelled=False)
    agreement = found["b"].agreement
    assert agreement is not None
    assert agreement.outputs["y"].sqnr_db is None
    assert agreement.outputs["y"].max_abs_error == 0.0
    with pytest.raises(RequestError, match="without labels"):
        _ = found["b"].value


def test_classes_have_no_signal_to_noise_ratio(rng: np.random.Generator) -> None:
    """A network that returns its decision first and its scores beside it."""
    scores = rng.normal(size=(8, 4))
    exact = {"class": scores.argmax(axis=1).astype(np.uint8), "scores": scores}
    found = {"class": exact["class"] + np.uint8(1), "scores": scores + 0.01}
    scorer = AgreementScorer("ref")
    scorer.add(exact, found)
    assert set(scorer.result().outputs) == {"scores"}
    assert scorer.result().top1 == 1.0
    alone = AgreementScorer("ref")
    alone.add({"class": exact["class"]}, {"class": np.where(np.arange(8) < 6, exact["class"], 9)})
    assert alone.result().outputs == {}
    assert alone.result().top1 == 0.75


def test_an_output_without_axes_is_compared() -> None:
    scorer = AgreementScorer("ref")
    scorer.add({"y": np.array(10.0)}, {"y": np.array(11.0)})
    assert scorer.result().outputs["y"].sqnr_db == pytest.approx(20.0)


def test_what_changes_its_shape_is_not_compared(rng: np.random.Generator) -> None:
    """As many boxes as there are left: the samples with as many by chance would flatter."""
    boxes, scores = rng.normal(size=(8, 4)), rng.normal(size=(1, 3))
    scorer = AgreementScorer("ref")
    scorer.add({"boxes": boxes, "scores": scores}, {"boxes": boxes, "scores": scores + 0.1})
    scorer.add({"boxes": boxes, "scores": scores}, {"boxes": boxes[:7], "scores": scores})
    scorer.add({"boxes": boxes, "scores": scores}, {"boxes": boxes, "scores": scores})
    assert set(scorer.result().outputs) == {"scores"}


def test_outputs_without_elements_are_not_compared(rng: np.random.Generator) -> None:
    scorer, empty, boxes = AgreementScorer("ref"), np.zeros((0, 4)), rng.integers(9, size=(8, 4))
    for made in (empty, boxes / 2):
        scorer.add({"boxes": made, "none": empty.T}, {"boxes": made + 0.5, "none": empty.T})
    assert [(n, o.max_abs_error) for n, o in scorer.result().outputs.items()] == [("boxes", 0.5)]


def test_regression_by_hand() -> None:
    data = samples_of(np.array([[1.0, 2.0], [3.0, 5.0]]), [np.array([1, 4]), np.array([3, 5])])
    found = evaluate(identity, data, RegressionTask())
    assert found.figures == pytest.approx({"mae": 0.5, "rmse": 1.0})
    assert not found.higher_is_better


def test_segmentation_by_hand() -> None:
    # Two classes on a 1×4 image; the fourth pixel is ignored.
    answer = np.array([[[0.9, 0.2, 0.1, 0.1]], [[0.1, 0.8, 0.9, 0.9]]])
    label = np.array([[0, 0, 1, 255]])
    found = evaluate(identity, samples_of(answer[None], [label]), SegmentationTask(classes=2))
    # class 0: 1 of 2 pixels in the union; class 1: 1 of 2
    assert found.figures == pytest.approx({"miou": 0.5, "pixel_accuracy": 2 / 3})
    assert found.resampled == pytest.approx(0.5)


def test_segmentation_ignores_classes_that_never_occur(rng: np.random.Generator) -> None:
    label = rng.integers(0, 3, (6, 8, 8))
    answers = np.eye(5)[label].transpose(0, 3, 1, 2)
    found = evaluate(identity, samples_of(answers, list(label)), SegmentationTask(classes=5))
    assert found.value == 1.0
    assert found.resampled == pytest.approx(1.0)


def test_a_metric_of_ones_own(rng: np.random.Generator) -> None:
    data = samples_of(rng.normal(size=(6, 3)), [0] * 6)
    expected = np.mean([sample.inputs["x"].max() for sample in data])
    task = CustomTask(score=lambda outputs, label: float(outputs["y"].max()), name="peak")
    assert evaluate(identity, data, task).figures == pytest.approx({"peak": expected})
    broken = CustomTask(score=lambda outputs, label: float("nan"), name="peak")
    with pytest.raises(DataError, match="metric peak gives nan for sample s0"):
        evaluate(identity, data, broken)


def right(share: float, count: int, rng: np.random.Generator) -> AccuracyResult:
    scores = np.where(rng.random(count) < share, 1.0, -1.0)
    data = samples_of(np.stack([scores, np.zeros(count)], axis=1), [0] * count)
    return evaluate(identity, data)


def test_a_drop_of_five_points_is_shown_and_of_nothing_is_not(rng: np.random.Generator) -> None:
    base = right(0.98, 2000, rng)
    assert compare_accuracy(base, base).verdict == "no difference shown"
    found = compare_accuracy(base, right(0.93, 2000, rng))
    assert found.verdict == "worse"
    assert found.unit == "points"
    assert found.drop == pytest.approx(5, abs=2.5)
    assert found.interval.low < found.drop < found.interval.high
    assert found.mcnemar is not None
    assert found.mcnemar.p_value < 0.001


def test_pairing_narrows_the_interval(rng: np.random.Generator) -> None:
    # 90 % right, and the candidate differs on 1 % of the samples: unpaired, ±2.6 points.
    base = right(0.9, 1000, rng)
    flipped = base.per_sample.copy()
    flipped[:10] = 1 - flipped[:10]
    candidate = evaluate(
        identity, samples_of(np.stack([2 * flipped - 1, 0 * flipped], axis=1), [0] * 1000)
    )
    found = compare_accuracy(base, candidate)
    assert found.interval.high - found.interval.low < 1.5


def test_an_error_that_grows_is_a_drop_in_percent() -> None:
    labels = [np.zeros(1)] * 50
    base = evaluate(identity, samples_of(np.full((50, 1), 1.0), labels), RegressionTask())
    worse = evaluate(identity, samples_of(np.full((50, 1), 1.1), labels), RegressionTask())
    found = compare_accuracy(base, worse)
    assert found.unit == "percent"
    assert found.drop == pytest.approx(10, rel=1e-5)
    assert found.verdict == "worse"
    assert found.mcnemar is None


def test_accuracies_of_other_samples_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(RequestError, match="of 10 and 'top1' of 11 samples"):
        compare_accuracy(right(0.9, 10, rng), right(0.9, 11, rng))


@given(st.text(max_size=40))
def test_any_text_is_a_task_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("task") / "task.yaml"
    path.write_text(text)
    with pytest.raises(DataError):
        read_task(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: clasification", "'clasification', expected one of classification"),
        ("task: classification\nlabel_ofset: 1", "did you mean 'label_offset'"),
        ("task: classification\nlabel_offset: one", "label_offset: 'one', expected int"),
        ("task: segmentation", "lacks classes"),
        ("task: segmentation\nclasses: 1", "classes: 1, expected at least 2"),
        ("task: detection\nannotations: a.json\ndecode: yolo", "decode: 'yolo', expected one of"),
        ("task: detection\nannotations: a.json\niou_threshold: 65", "iou_threshold: 65"),
        ("task: detection\nannotations: a.json\nstrides: []", "strides: \\[\\]"),
        ("task: detection\nannotations: a.json\npreprocess: x", "unknown key 'preprocess'"),
        ("- task", "holds list"),
        ("task: [", "is not YAML"),
    ],
)
def test_task_specs_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_task(path)


def test_a_task_spec_names_files_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(
        "task: detection\nannotations: boxes.json\nstrides: [4, 8]\niou_threshold: null"
    )
    task = read_task(path)
    assert task.annotations == tmp_path / "boxes.json"  # type: ignore[union-attr]
    assert task.strides == (4, 8)  # type: ignore[union-attr]
    assert task.iou_threshold is None  # type: ignore[union-attr]
