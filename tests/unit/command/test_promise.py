"""Models held against a promise, and samples that belong to one part only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import calibrators
from artefacts.errors import DataError, GateMissedError
from pipeline.flags import parse_job
from pipeline.gates import refuse_if_missed
from pipeline.judge import SQNR, Judge, Verdict
from pipeline.parts import Part, digests_of, divide, learning_part
from pipeline.promise import Promise
from pipeline.screen import Screen
from pipeline.verification import say_verdict
from quantization.measure.execution import load_onnxruntime
from quantization.search.problem import Goal
from tests.networks.choosing import best_boxes


def through(batch: int | str = "N") -> onnx.ModelProto:
    """Output is the input."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["output"], name="same")],
        "through",
        [info("input", TensorProto.FLOAT, [batch, 4])],
        [info("output", TensorProto.FLOAT, [batch, 4])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def samples(tmp_path: Path, rng: np.random.Generator) -> calibrators.Samples:
    values = rng.normal(size=(40, 4)).astype(np.float32)
    np.savez(tmp_path / "s.npz", input=values, labels=values.argmax(axis=1))
    return calibrators.open_samples(
        tmp_path / "s.npz", inputs=calibrators.input_specs(through()), preprocess=None
    )


def judge(samples: calibrators.Samples, *flags: str, model: onnx.ModelProto | None = None) -> Judge:
    words = ["--onnx", "m.onnx", "--engine", "o/m.engine", "--calib-data", "c", "--eval-data", "e"]
    job = parse_job([*words, *flags])
    assert job.quantize.promise is not None
    return Judge(job.data, model or through(), job.quantize.promise, samples)


def off_by(noise: np.ndarray) -> object:
    rows = iter(np.array_split(noise, 5))  # batches of 8
    return lambda feeds: {"output": feeds["input"] + next(rows)}


def test_sqnr_is_that_of_all_samples(
    samples: calibrators.Samples, rng: np.random.Generator
) -> None:
    noise = 0.1 * rng.normal(size=(40, 4)).astype(np.float32)
    exact = np.concatenate([sample.inputs["input"] for sample in samples]).astype(np.float64)
    found = exact.astype(np.float32) + noise
    expected = 10 * np.log10((exact**2).sum() / ((exact - found.astype(np.float64)) ** 2).sum())
    verdict = judge(samples, "--min-sqnr", "12")(off_by(noise))  # type: ignore[arg-type]
    assert verdict.score == pytest.approx(expected)
    assert verdict.interval[0] < verdict.score < verdict.interval[1]
    assert verdict.cautious == verdict.interval[0]
    assert verdict.kept == (expected >= 12)


@pytest.mark.parametrize("whole", [True, False], ids=["batches", "rows"])
def test_all_of_a_fixed_batch_counts(whole: bool, tmp_path: Path, rng: np.random.Generator) -> None:
    """Samples that are batches of 3 count with all rows, rows that are stacked with their own."""
    values = rng.normal(size=(10, 3, 4) if whole else (10, 4)).astype(np.float32)
    np.save(tmp_path / "s.npy", values)
    inputs = calibrators.input_specs(through(3))
    samples = calibrators.open_samples(tmp_path / "s.npy", inputs=inputs, preprocess=None)
    scales = 1 + np.array([[0.01], [0.1], [0.3]], np.float32)  # of the rows of a batch
    verdict = judge(samples, "--min-sqnr", "12", model=through(3))(
        lambda feeds: {"output": scales * feeds["input"]}
    )
    exact = (
        values.astype(np.float64)
        if whole
        else np.concatenate([values, values[-1:] * 0, values[-1:] * 0])
    )
    noise = (scales - 1) * exact.reshape(-1, 3, 4)
    assert verdict.score == pytest.approx(
        10 * np.log10((exact**2).sum() / (noise**2).sum()), rel=1e-4
    )
    assert verdict.samples == 10


def test_equal_outputs_keep_every_promise(samples: calibrators.Samples) -> None:
    for flags in (("--min-sqnr", "90"), ("--min-agreement", "1"), ("--max-drop", "0")):
        verdict = judge(samples, *flags)(load_onnxruntime(through()))
        assert verdict.kept
        assert "e+308" not in str(verdict)
        assert None not in verdict.to_dict()["interval"] or flags[0] == "--min-sqnr"


def test_a_drop_is_counted_in_points(samples: calibrators.Samples) -> None:
    noise = np.zeros((40, 4), np.float32)
    wrong = np.array([sample.label for sample in samples])[:4]
    noise[np.arange(4), wrong] = -100  # four of forty samples: ten points
    for limit, kept in (("10.1", True), ("10", True), ("9.9", False)):
        verdict = judge(samples, "--max-drop", limit)(off_by(noise))  # type: ignore[arg-type]
        assert verdict.score == pytest.approx(-10.0)
        assert verdict.kept is kept
        assert verdict.cautious == verdict.score
    assert str(verdict).startswith("a drop of 10 points of top1 [")
    assert str(verdict).endswith("] on 40 samples")
    verdict = judge(samples, "--min-agreement", "95%")(off_by(noise))  # type: ignore[arg-type]
    assert verdict.score == pytest.approx(90.0)
    assert not verdict.kept


def test_a_drop_is_not_promised_of_a_baseline_near_chance(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Labels off by one, of a network whose answer is the largest input."""
    values = rng.normal(size=(40, 4)).astype(np.float32)
    values[:, 0] = -9  # so that no label minus 1 is below 0
    labels = values.argmax(axis=1) - 1
    np.savez(tmp_path / "s.npz", input=values, labels=labels)
    inputs = calibrators.input_specs(through())
    shifted = calibrators.open_samples(tmp_path / "s.npz", inputs=inputs, preprocess=None)
    with pytest.raises(DataError, match=r"top1 0\.00% on 40 .*labels plus 1 would give 100\.00%"):
        judge(shifted, "--max-drop", "1")
    task = tmp_path / "task.yaml"
    task.write_text("task: classification\nlabel_offset: 1\n")
    mended = judge(shifted, "--max-drop", "1", "--task", str(task))
    assert mended(load_onnxruntime(through())).score == 0.0
    assert judge(shifted, "--min-sqnr", "9")(load_onnxruntime(through())).kept


def ending(
    op_type: str, *constants: object, kind: int = TensorProto.FLOAT, **attributes: int
) -> onnx.ModelProto:
    """The input through one operator."""
    model = through()
    names = [f"constant_{number}" for number in range(len(constants))]
    for name, value in zip(names, constants, strict=True):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    node = helper.make_node(op_type, ["input", *names], ["output"], name="last", **attributes)
    model.graph.node[0].CopyFrom(node)
    output = helper.make_tensor_value_info("output", kind, None)
    model.graph.output[0].CopyFrom(output)
    return model


def test_agreement_needs_class_scores(samples: calibrators.Samples) -> None:
    model = ending("Unsqueeze", [2])
    judged = judge(samples, "--min-agreement", "0.9", model=model)
    with pytest.raises(
        DataError, match="--min-agreement 90 with a model whose outputs output hold no"
    ):
        judged(load_onnxruntime(model))


def test_agreement_of_classes_is_their_share(samples: calibrators.Samples) -> None:
    model = ending("ArgMax", kind=TensorProto.INT64, axis=1)
    exact = load_onnxruntime(model)
    judged = judge(samples, "--min-agreement", "0.9", model=model)
    numbers = iter(range(5))  # batches of 8

    def wrong_once(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        answers = exact(feeds)["output"]
        return {"output": answers + (next(numbers) == 0)}

    assert judged(exact).score == 100.0
    assert judged(wrong_once).score == pytest.approx(80.0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ending("ArgMax", kind=TensorProto.INT64, axis=1), "output hold no floats"),
        (ending("Compress", [True, False], axis=1), "the shape of output depends on the data"),
        (ending("NonZero", kind=TensorProto.INT64), "output hold no floats"),
        (best_boxes(), r"the order of Gather\w+, Cast_0 depends on the data \(as behind TopK\)"),
    ],
)
def test_levels_need_floats_of_a_fixed_shape_and_order(
    model: onnx.ModelProto, message: str, samples: calibrators.Samples
) -> None:
    with pytest.raises(DataError, match=f"--min-sqnr 20 with a model .*{message}.*--max-drop"):
        judge(samples, "--min-sqnr", "20", model=model)


def test_parts_share_no_content_and_cover_all(samples: calibrators.Samples) -> None:
    learning, rest = learning_part(samples)
    selection, test = divide(rest, share=0.5)
    digests = [{sample.digest for sample in part} for part in (learning, selection, test)]
    assert [len(part) for part in (learning, selection, test)] == [24, 8, 8]
    assert len(set.union(*digests)) == 40
    assert sum(map(len, digests)) == 40


def test_a_part_is_a_source_of_its_own(samples: calibrators.Samples) -> None:
    part = Part(samples, [9, 3, 5])
    names = [sample.digest for sample in samples]
    assert [sample.digest for sample in part] == [names[3], names[5], names[9]]
    assert [sample.digest for sample in part[1:]] == [names[5], names[9]]
    part.keep()
    assert [sample.digest for sample in part] == [names[3], names[5], names[9]]
    assert (len(part), part.path, part.classes) == (3, samples.path, samples.classes)


def test_samples_are_read_once_for_their_digests(
    samples: calibrators.Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [sample.digest for sample in samples]
    passes = []
    read = type(samples).__iter__

    def counted(self: calibrators.Samples) -> Iterator[calibrators.Sample]:
        passes.append(len(self))
        return read(self)

    monkeypatch.setattr(type(samples), "__iter__", counted)
    learning, rest = learning_part(samples)
    selection, test = divide(rest, share=0.5)
    found = [digest for part in (learning, selection, test) for digest in digests_of(part)]
    assert sorted(found) == sorted(wanted)
    assert digests_of(learning[3:5]) == digests_of(learning)[3:5]
    assert passes == [40]
    assert [sample.digest for sample in test] == digests_of(test)


def test_promises_say_their_flag() -> None:
    assert str(Promise(kind="drop", minimum=-0.5)) == "--max-drop 0.5"
    assert str(Promise(kind="agreement", minimum=99.0)) == "--min-agreement 99"


def test_a_promise_that_is_just_kept_is_kept() -> None:
    drop = 100 * (0.735 - 0.73)
    assert drop > 0.5  # in floats
    assert Promise(kind="drop", minimum=-0.5).goal("points").kept(-drop)


def verdict(score: float, *, limit: float = -0.5, unit: str = "points of top1") -> Verdict:
    """On 125 samples, 2.8 either way."""
    goal = Goal(minimum=limit, unit=unit, drop=unit.startswith("points"))
    return Verdict(score=score, interval=(score - 2.8, score + 2.8), samples=125, goal=goal)


def test_a_missed_promise_says_how_many_samples_would_tell() -> None:
    promise = Promise(kind="drop", minimum=-0.5)
    with pytest.raises(GateMissedError) as error:
        refuse_if_missed(promise, Path("m.engine"), "", verdict(-0.8))
    said = (
        "by 2.8 either way, more than the 0.5 that are promised; about 3,900 would tell: give more"
    )
    assert f"on 125 samples chance alone moves it {said}, or promise less" in str(error.value)


@pytest.mark.parametrize(
    ("limit", "unit", "said"),
    [
        (-0.5, "points of top1", "the 0.5 that are promised; about 3,900 would tell"),
        (-3.0, "points of top1", ""),
        (99.0, "% of the same top-1", "the 1 that are promised; about 980 would tell"),
        (97.0, "% of the same top-1", ""),
        (25.0, SQNR, ""),
    ],
)
def test_a_kept_promise_that_chance_can_break_says_so(
    limit: float, unit: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = verdict(99.9 if limit > 0 else 0.0, limit=limit, unit=unit)
    say_verdict(Promise(kind="drop", minimum=limit), found, Screen(bars=False, steps=1))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + bool(said)
    assert said in lines[-1]
