"""Would FP32 know the labels if images were prepared otherwise? Tried on the same samples.

Only where it knows them badly: a wrong order of colours or a wrong scale are the usual causes, and
both leave a model that runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

import calibrators
from artefacts.errors import DataError
from benchmarks.accuracy import evaluate, read_task
from benchmarks.statistics import binomial_tail
from calibrators import Preprocess
from pipeline.baseline import DOUBT, SHIFTS, Baseline, LabelFit
from pipeline.job import Data
from pipeline.samples import evaluation_samples
from quantization.measure.execution import Run

__all__ = ["Variant", "better_preprocessing", "variants"]

TRIED_SAMPLES = 100
ORDERS = {"rgb": ("rgb", "bgr"), "bgr": ("bgr", "rgb"), "gray": ("gray",)}
# What networks are fed with: 0..1, 0..255, -1..1, ImageNet's mean and deviation, Caffe's mean.
NUMBERS: tuple[dict[str, Any], ...] = (
    {"scale": 1 / 255, "mean": 0.0, "std": 1.0},
    {"scale": 1.0, "mean": 0.0, "std": 1.0},
    {"scale": 1.0, "mean": 127.5, "std": 127.5},
    {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    {"scale": 1.0, "mean": (123.68, 116.779, 103.939), "std": 1.0},
)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The spec with other colours or numbers.

    Attributes:
        preprocess: the spec.
        said: what is other, as a person writes it into the file.
    """

    preprocess: Preprocess
    said: str


def variants(spec: Preprocess) -> Iterator[Variant]:
    """The spec with the other order of colours, other numbers, and both; never itself."""
    if not spec.dtype.startswith("float"):
        return
    for color in ORDERS[spec.color]:
        turned = replace(spec, color=color, **_numbers(spec, color == spec.color))
        if color != spec.color:
            yield Variant(preprocess=turned, said=f"color: {color}")
        for entry in NUMBERS:
            if spec.channels == 1 and any(isinstance(value, tuple) for value in entry.values()):
                continue
            # NUMBERS are in the order of red, green and blue; each colour keeps its own.
            made = replace(spec, color=color, **_numbers(Preprocess(**entry), color != "bgr"))
            if np.allclose(made.table, turned.table, rtol=1e-3, atol=1e-3):
                continue
            parts = [f"color: {color}"] if color != spec.color else []
            parts += [f"{key}: {_plain(getattr(made, key))}" for key in entry]
            yield Variant(preprocess=made, said=", ".join(parts))


def _numbers(spec: Preprocess, kept: bool) -> dict[str, Any]:
    """Scale, mean and deviation; those per channel the other way round unless ``kept``."""
    found = {"scale": spec.scale, "mean": spec.mean, "std": spec.std}
    return {
        key: value[::-1] if isinstance(value, tuple) and not kept else value
        for key, value in found.items()
    }


def better_preprocessing(
    data: Data,
    prepared: onnx.ModelProto,
    run: Run,
    samples: calibrators.Samples,
    fit: LabelFit,
) -> str:
    """What FP32 would know under the best of the variants; empty where none is clearly better.

    By exact one-sided binomial tests against the accuracy that was found (the best label offset),
    1 % for all tries together.

    Args:
        data: where the samples are read again, prepared otherwise.
        prepared: the float model.
        run: the same, running.
        samples: that were judged.
        fit: what it knew of them.
    """
    if samples.preprocess is None:
        return ""
    tried = list(variants(samples.preprocess))
    first = next(iter(samples)).digest
    known = max(fit.best, fit.chance)
    best: tuple[float, str] = (0.0, "")
    for variant in tried:
        others = _spread(evaluation_samples(replace(data, preprocess=variant.preprocess), prepared))
        if next(iter(others)).digest == first:
            return ""  # arrays that were prepared elsewhere: no spec changes them
        found = _counted(data, prepared, run, others)
        if found is None:
            continue
        offset = max(found.right, key=lambda shift: found.right[shift])
        luck = binomial_tail(found.right[offset], found.samples, min(known, 1 - 1e-9))
        if luck <= DOUBT / (len(tried) * len(SHIFTS)) and found.accuracy(offset) > best[0]:
            shifted = "" if offset == found.offset else f" with label_offset: {offset}"
            best = (
                found.accuracy(offset),
                f"{variant.said}{shifted} gives {found.accuracy(offset):.2%} on {found.samples} of "
                "them",
            )
    return best[1]


def _counted(
    data: Data, prepared: onnx.ModelProto, run: Run, samples: calibrators.Samples
) -> LabelFit | None:
    """The labels against the answers; None where the model cannot be fed so."""
    task = read_task(data.task) if data.task else None
    baseline = Baseline(task)
    try:
        evaluate(run, samples, task, inputs=calibrators.input_specs(prepared), watch=baseline.add)
    except DataError:
        return None
    return baseline.fit


def _spread(samples: calibrators.Samples) -> calibrators.Samples:
    """At most so many samples, from all over: folders are sorted by class."""
    try:
        return samples[:: max(1, -(-len(samples) // TRIED_SAMPLES))]
    except TypeError:  # a loader
        return samples[:TRIED_SAMPLES]


def _plain(value: object) -> str:
    """As a person would write it: 1/255, 127.5, [0.485, 0.456, 0.406]."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return "1/255" if value == 1 / 255 else f"{value:.6g}"
