"""Run every system over the same samples, one pass, outputs never kept.

Evaluating side by side costs no memory for outputs and makes all comparisons paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from artefacts.errors import DataError
from benchmarks.accuracy.agreement import AgreementScorer
from benchmarks.accuracy.classification import ClassificationTask
from benchmarks.accuracy.detection import DetectionTask
from benchmarks.accuracy.result import AccuracyResult, Arrays, Scorer
from benchmarks.accuracy.task import Task
from calibrators.samples.axes import evaluation_batch
from calibrators.samples.data import Batch, InputSpec, Sample, batches

__all__ = ["System", "Watch", "evaluate", "evaluate_all"]

System = Callable[[dict[str, npt.NDArray[np.generic]]], Arrays]
Watch = Callable[[Arrays, Sample], object]


def evaluate(
    system: System,
    samples: Iterable[Sample],
    task: Task | None = None,
    *,
    inputs: Sequence[InputSpec] = (),
    batch_size: int = 1,
    watch: Watch | None = None,
) -> AccuracyResult:
    """Accuracy of one system; see :func:`evaluate_all`."""
    found = evaluate_all(
        {"": system},
        samples,
        task,
        inputs=inputs,
        batch_size=batch_size,
        watch=None if watch is None else {"": watch},
    )
    return found[""]


def evaluate_all(
    systems: Mapping[str, System],
    samples: Iterable[Sample],
    task: Task | None = None,
    *,
    inputs: Sequence[InputSpec] = (),
    batch_size: int = 1,
    reference: str | None = None,
    labelled: bool = True,
    on_sample: Callable[[int], object] = lambda count: None,
    watch: Mapping[str, Watch] | None = None,
) -> dict[str, AccuracyResult]:
    """Accuracy of each system on the same samples, and its agreement with a reference.

    Args:
        systems: callables from ``{input: array}`` to ``{output: array}``.
        samples: labelled samples, batch axis 1 each; read once.
        task: what the labels mean; None for classification of the only output.
        inputs: of the systems; a static batch among them wins over ``batch_size``. Without them
            the samples' own shapes are taken, with a free batch axis.
        batch_size: samples per call.
        reference: the system whose outputs the others are compared with; None for no comparison.
        labelled: whether to score labels; False leaves the agreement alone.
        on_sample: called with how many samples are done.
        watch: system → what else is called with its answer to every sample that was scored.

    Raises:
        DataError: no samples, or a sample without a usable label.
    """
    task = task or ClassificationTask()
    if isinstance(task, DetectionTask) and task.preprocess is None:
        # Samples know how they were prepared; boxes take the same way back.
        task = replace(task, preprocess=getattr(samples, "preprocess", None))
    scorers: dict[str, Scorer] = {name: task.scorer() for name in systems if labelled}
    likeness = {
        name: AgreementScorer(reference) for name in systems if reference and name != reference
    }
    watched = watch or {}
    count = 0
    for batch in _batched(samples, batch_size, inputs):
        outputs = {name: _rows(call(batch.inputs), batch) for name, call in systems.items()}
        for name, scorer in scorers.items():
            for answer, sample in _answers(outputs[name], batch):
                scorer.add(answer, sample)
                if name in watched:
                    watched[name](answer, sample)
        for name, comparison in likeness.items():
            comparison.add(outputs[str(reference)], outputs[name])
        count += len(batch.samples)
        on_sample(count)
    if not count:
        raise DataError("0 samples to evaluate on, expected at least 1; check the data path")
    unscored = AccuracyResult(metric="", figures={}, samples=count)
    return {
        name: replace(
            scorers[name].result() if labelled else unscored,
            agreement=likeness[name].result() if name in likeness else None,
        )
        for name in systems
    }


def _batched(samples: Iterable[Sample], size: int, inputs: Sequence[InputSpec]) -> Iterator[Batch]:
    """Batches for the given inputs, or for those that the first sample shows."""
    iterator = iter(samples)
    if not inputs:
        first = next(iterator, None)
        if first is None:
            return
        inputs = [
            InputSpec(name=name, dtype=array.dtype, shape=(None, *array.shape[1:]))
            for name, array in first.inputs.items()
        ]
        iterator = chain([first], iterator)
    yield from batches(iterator, evaluation_batch(inputs, size), inputs=inputs)


def _answers(outputs: Arrays, batch: Batch) -> Iterator[tuple[Arrays, Sample]]:
    """Each sample with what was answered to it; all outputs belong to a sample that is alone."""
    for row, sample in enumerate(batch.samples):
        alone = {key: array[row : row + 1] for key, array in outputs.items()}
        yield (alone if len(batch.samples) > 1 else outputs), sample


def _rows(outputs: Arrays, batch: Batch) -> dict[str, npt.NDArray[np.generic]]:
    """Outputs without the rows that only fill up a static batch."""
    if not batch.padding:
        return dict(outputs)
    return {name: array[: batch.count] for name, array in outputs.items()}
