"""The samples of a run: to learn from, to judge by, and a few requests to try a model on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray

import calibrators
from artefacts.errors import DataError, InputError
from pipeline.job import Data
from pipeline.parts import Part, divide, learning_part

__all__ = [
    "any_samples",
    "calibration_samples",
    "evaluation_samples",
    "given_samples",
    "judging_parts",
    "refuse_nothing_to_learn",
    "reporting_samples",
    "trial_requests",
]

Arrays = Mapping[str, NDArray[Any]]
TRIAL_SAMPLES = 8
LIKENESS_SAMPLES = 32


def calibration_samples(data: Data, prepared: onnx.ModelProto) -> calibrators.Samples:
    """The samples to learn from; random ones only where asked for.

    Raises:
        InputError: there are none.
    """
    samples = given_samples(data, prepared)
    return learning_part(samples)[0] if data.holds_out else samples


def evaluation_samples(data: Data, prepared: onnx.ModelProto) -> calibrators.Samples:
    """The samples of ``--eval-data``, labelled unless the promise needs no labels.

    Raises:
        DataError: they cannot be read or have no labels.
    """
    assert data.eval_data is not None
    inputs = calibrators.input_specs(prepared)
    samples = calibrators.open_samples(
        data.eval_data, inputs=inputs, preprocess=_spec(data, inputs)
    )
    if data.task is None and data.labelled:
        calibrators.require_labels(samples)
    return samples


def judging_parts(data: Data, prepared: onnx.ModelProto) -> tuple[Part, Part]:
    """Samples to choose by and samples to report on, none of them calibrated with.

    Raises:
        DataError: fewer than two distinct samples.
    """
    if data.eval_data is not None:
        return divide(evaluation_samples(data, prepared), share=0.5)
    return divide(learning_part(given_samples(data, prepared))[1], share=0.5)


def reporting_samples(data: Data, prepared: onnx.ModelProto) -> calibrators.Samples:
    """What to measure on: nothing that a search may have seen."""
    if data.holds_out or (data.searched and data.eval_data is not None):
        return judging_parts(data, prepared)[1]
    if data.eval_data is not None:
        return evaluation_samples(data, prepared)
    return calibration_samples(data, prepared)[:LIKENESS_SAMPLES]


def trial_requests(data: Data, prepared: onnx.ModelProto, largest: int) -> list[list[Arrays]]:
    """Inputs of a few requests: samples alone, then as many of them at once as may come.

    Raises:
        BuilderError: no samples can be read, or made up for the model's free axes.
    """
    inputs = calibrators.input_specs(prepared)
    if data.learns:
        samples = calibration_samples(data, prepared)
    elif data.eval_data is not None:
        samples = evaluation_samples(data, prepared)
    else:
        samples = calibrators.random_samples(inputs, count=TRIAL_SAMPLES, seed=0)
    few = list(itertools.islice(samples, TRIAL_SAMPLES))
    alone: list[Arrays] = [batch.inputs for batch in calibrators.batches(few, 1, inputs=inputs)]
    if not alone:
        raise DataError("0 samples were read, expected at least 1; check the data path")
    stacks = calibrators.has_batch_axis(inputs) and calibrators.fixed_batch(inputs) != 1
    if largest == 1 or not stacks:
        return [alone]
    # The few again and again: what is tried is the batch size, not other data.
    many = list(itertools.islice(itertools.cycle(few), largest))
    together: list[Arrays] = [
        batch.inputs for batch in calibrators.batches(many, largest, inputs=inputs)
    ]
    return [alone, together]


def any_samples(data: Data, inputs: Sequence[calibrators.InputSpec]) -> calibrators.Samples:
    """Those that are given, whatever they are for, to see what one of them is."""
    given = data.calib_data if data.calib_data is not None else data.eval_data
    if given is None:
        return calibrators.random_samples(inputs, count=2, seed=0)
    return calibrators.open_samples(given, inputs=inputs, preprocess=_spec(data, inputs))


def refuse_nothing_to_learn(data: Data) -> None:
    """Refuse to calibrate on nothing.

    Raises:
        InputError: neither samples nor random ones are asked for.
    """
    if not data.learns:
        raise InputError(
            "--precision int8 without --calib-data has nothing to take ranges from, expected an "
            "image folder, .npz, .npy or a Python file with load_data(); give one (or "
            "--random-calibration 8 to measure speed only)"
        )


def given_samples(data: Data, prepared: onnx.ModelProto) -> calibrators.Samples:
    """All samples of ``--calib-data``, those that are held back among them; or random ones.

    Raises:
        InputError: there are none.
    """
    inputs = calibrators.input_specs(prepared)
    if data.random_calibration is not None:
        return calibrators.random_samples(inputs, count=data.random_calibration, seed=0)
    refuse_nothing_to_learn(data)
    assert data.calib_data is not None
    samples = calibrators.open_samples(
        data.calib_data, inputs=inputs, preprocess=_spec(data, inputs), limit=data.calib_num
    )
    return samples if data.shard is None else samples[data.shard[0] - 1 :: data.shard[1]]


def _spec(data: Data, inputs: Sequence[calibrators.InputSpec]) -> calibrators.Preprocess | None:
    if data.preprocess is None or isinstance(data.preprocess, calibrators.Preprocess):
        return data.preprocess
    return calibrators.preprocess_named(data.preprocess, inputs)
