"""Models that know the labels, models that guess, and labels that are off by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artefacts.errors import DataError
from benchmarks.accuracy import ClassificationTask, CustomTask, evaluate
from benchmarks.accuracy.task import Task
from calibrators import Preprocess, Sample
from pipeline.baseline import Baseline, LabelFit
from pipeline.flags import parse_job
from pipeline.parity import variants
from pipeline.promise import Promise

WORDS = ["--onnx", "m.onnx", "--engine", "o/m.engine", "--calib-data", "c", "--eval-data", "e"]
PREPROCESSING = (
    r"no label offset within 2 fits, so the likely cause is the preprocessing \(channel order, "
    r"scale, mean: --preprocess\) or another order of the classes; correct it$"
)


def promised(*flags: str) -> Promise | None:
    return parse_job([*WORDS, *flags]).quantize.promise


def watched(scores: np.ndarray, labels: np.ndarray, task: Task | None = None) -> Baseline:
    """The baseline of a model that gives these scores, (samples, classes)."""
    baseline = Baseline(task)
    samples = [
        Sample(inputs={"x": row[None]}, name=f"s{number}", label=int(label))
        for number, (row, label) in enumerate(zip(scores, labels, strict=True))
    ]
    evaluate(lambda feeds: feeds, samples, task, watch=baseline.add, batch_size=3)  # type: ignore[arg-type, return-value]
    return baseline


def answering(answers: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[answers]


@given(
    classes=st.integers(8, 40),
    shift=st.sampled_from([-2, -1, 1, 2]),
    offset=st.integers(-1, 1),
    data=st.data(),
)
def test_a_perfect_model_with_shifted_labels_is_refused_and_the_shift_named(
    classes: int, shift: int, offset: int, data: st.DataObject
) -> None:
    """Classes of the model are label + offset + shift; the task says label + offset."""
    inside = st.integers(2, classes - 3)
    answers = np.array(data.draw(st.lists(inside, min_size=8, max_size=60)))
    task = ClassificationTask(label_offset=offset)
    scores, labels = answering(answers, classes), answers - offset - shift
    baseline = watched(scores, labels, task)
    sign = "plus" if shift > 0 else "minus"
    said = (
        f"FP32 has top1 0.00% on {len(answers)} samples, expected clearly more than "
        f"{0.02 + 0.98 / classes:.2%} (chance is {1 / classes:.2%} for {classes} classes); "
        f"labels {sign} {abs(shift)} would give 100.00%; write label_offset: {offset + shift} (now "
        f"{offset}) beside task: classification into the file for --task, or correct the labels"
    )
    assert baseline.check(promised()) == [said]
    with pytest.raises(DataError) as caught:
        baseline.check(promised("--max-drop", "0.5"))
    assert str(caught.value) == f"--max-drop 0.5 has a baseline near chance: {said}"
    mended = watched(scores, labels, ClassificationTask(label_offset=offset + shift))
    assert mended.check(promised("--max-drop", "0.5")) == []


@given(st.integers(2, 1001), st.integers(1, 300))
def test_a_perfect_model_is_never_refused(classes: int, count: int) -> None:
    answers = np.arange(count) % classes
    assert watched(answering(answers, classes), answers).check(promised("--max-drop", "0.5")) == []


@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_a_model_that_guesses_is_refused_for_its_preprocessing(
    classes: int, rng: np.random.Generator
) -> None:
    """Right as often as chance says; other answers are further off than any offset tried."""
    labels = np.concatenate([rng.integers(0, classes, 200), np.arange(classes)])[:200]
    answers = (labels + rng.integers(3, classes - 2, 200)) % classes
    answers[: 200 // classes] = labels[: 200 // classes]
    share = f"{(200 // classes) / 200:.2%}"
    message = (
        f"^--max-drop 1 has a baseline near chance: FP32 has top1 {share} on 200 samples, expected "
        f"clearly more than {0.02 + 0.98 / classes:.2%} .chance is {1 / classes:.2%} for {classes} "
        f"classes.; {PREPROCESSING}"
    )
    with pytest.raises(DataError, match=message):
        watched(answering(answers, classes), labels).check(promised("--max-drop", "1"))


def test_a_model_that_answers_nothing_is_refused(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 10, 50)
    with pytest.raises(DataError, match=f"top1 0.00% on 50 samples.*{PREPROCESSING}"):
        watched(np.zeros((50, 10), np.float32), labels).check(promised("--max-drop", "1"))


def test_a_few_samples_accuse_nobody() -> None:
    """A model halfway to perfect (55 %) has none of five right in 1.8 %, of six in 0.8 %."""
    labels = np.arange(1, 7)
    scores = answering(labels - 1, 10)
    assert watched(scores[:5], labels[:5]).check(promised("--max-drop", "1")) == []
    with pytest.raises(DataError, match=r"labels minus 1 would give 100\.00%"):
        watched(scores, labels).check(promised("--max-drop", "1"))


@pytest.mark.parametrize(
    ("fit", "near"),
    [
        # MobileNetV2 with the labels of 1000 classes: neighbours are alike, 3 of 250 are not luck.
        (LabelFit(classes=1001, samples=250, right={0: 3, -1: 2, 1: 215, -2: 0, 2: 1}), True),
        (LabelFit(classes=1001, samples=50_000, right={0: 400, 1: 35_000, 2: 380}), True),
        # The same fed with 0..255: as many are right.
        (LabelFit(classes=1001, samples=250, right={1: 3, 0: 1, 2: 0}), True),
        # Weak, but no luck.
        (LabelFit(classes=1001, samples=250, right={0: 13, -1: 2, 1: 1, -2: 0, 2: 1}), False),
        (LabelFit(classes=50_000, samples=5000, right={0: 150, 1: 90}), False),
        (LabelFit(classes=10, samples=240, right={0: 50, 1: 24}), False),
        (LabelFit(classes=2, samples=240, right={0: 145}), False),
        # An offset is better, but the model does know the labels as they are.
        (LabelFit(classes=1000, samples=250, right={0: 100, 1: 150}), False),
        (LabelFit(classes=10, samples=1000, right={0: 200, 1: 980}), False),
        # Right as often as by luck, or less.
        (LabelFit(classes=10, samples=240, right={0: 30, 1: 24}), True),
        (LabelFit(classes=2, samples=240, right={0: 130}), True),
        (LabelFit(classes=2, samples=240, right={0: 4}), True),
    ],
    ids=str,
)
def test_what_is_near_chance(fit: LabelFit, near: bool) -> None:
    assert fit.near_chance is near


def test_an_offset_that_fits_by_luck_is_not_named() -> None:
    lucky = LabelFit(classes=10, samples=240, right={0: 24, -1: 30, 1: 33, -2: 20, 2: 24})
    assert lucky.near_chance
    assert lucky.fitting is None
    better = LabelFit(classes=10, samples=240, right={0: 24, -1: 30, 1: 60, -2: 20, 2: 24})
    assert better.fitting == 1


def test_an_offset_that_leaves_labels_without_a_class_is_not_named() -> None:
    """Two classes the wrong way round: half of the labels plus 1 would be right."""
    labels = np.repeat([0, 1], [40, 10])
    with pytest.raises(DataError, match=f"top1 0.00% on 50 samples.*{PREPROCESSING}"):
        watched(answering(1 - labels, 2), labels).check(promised("--max-drop", "1"))


@pytest.mark.parametrize(
    ("task", "classes"), [(CustomTask(score=lambda outputs, label: 0.0), 10), (None, 1)]
)
def test_what_has_no_classes_passes(task: Task | None, classes: int) -> None:
    scores, labels = np.zeros((50, classes), np.float32), np.zeros(50, np.int64)
    assert watched(scores, labels, task).check(promised("--max-drop", "1")) == []


def test_nothing_watched_is_no_doubt() -> None:
    assert Baseline(None).check(promised()) == []


def test_what_would_be_better_is_said_where_fp32_knows_little(rng: np.random.Generator) -> None:
    labels = np.arange(60) % 10
    asked = []

    def otherwise(fit: LabelFit) -> str:
        asked.append(fit)
        return "color: bgr gives 90.00% on 60 of them"

    wrong = watched(answering((labels + 5) % 10, 10), labels)
    assert wrong.check(promised(), otherwise)[0].endswith(
        "for 10 classes); color: bgr gives 90.00% on 60 of them; write it into the preprocessing "
        "spec"
    )
    # A third is right: no chance, but little.
    third = watched(answering(np.where(labels < 3, labels, (labels + 5) % 10), 10), labels)
    assert third.check(promised("--max-drop", "1"), otherwise)[0] == (
        "FP32 has top1 30.00% on 60 samples, and color: bgr gives 90.00% on 60 of them: if the "
        "model was trained so, write it into the preprocessing spec"
    )
    assert third.check(promised()) == []
    assert len(asked) == 2
    assert watched(answering(labels, 10), labels).check(promised(), otherwise) == []
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            Preprocess(scale="1/255"),
            [
                "scale: 1, mean: 0, std: 1",
                "scale: 1, mean: 127.5, std: 127.5",
                "scale: 1/255, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]",
                "scale: 1, mean: [123.68, 116.779, 103.939], std: 1",
                "color: bgr",
                "color: bgr, scale: 1, mean: 0, std: 1",
                "color: bgr, scale: 1, mean: 127.5, std: 127.5",
                "color: bgr, scale: 1/255, mean: [0.406, 0.456, 0.485], std: [0.225, 0.224, 0.229]",
                "color: bgr, scale: 1, mean: [103.939, 116.779, 123.68], std: 1",
            ],
        ),
        (
            Preprocess(scale="1/255", color="gray"),
            ["scale: 1, mean: 0, std: 1", "scale: 1, mean: 127.5, std: 127.5"],
        ),
        (Preprocess(dtype="uint8"), []),
    ],
    ids=["rgb", "gray", "bytes"],
)
def test_variants_of_a_spec(spec: Preprocess, said: list[str]) -> None:
    found = list(variants(spec))
    assert [variant.said for variant in found] == said
    for variant in found:
        assert variant.preprocess != spec


def test_a_spec_for_blue_first_keeps_each_colours_numbers() -> None:
    bgr = Preprocess(color="bgr", scale=1, mean=(103.939, 116.779, 123.68))
    turned = next(v for v in variants(bgr) if v.said == "color: rgb")
    assert turned.preprocess.mean == (123.68, 116.779, 103.939)
    assert not [v for v in variants(bgr) if v.said == "scale: 1, mean: [103.939, 116.779, 123.68]"]
