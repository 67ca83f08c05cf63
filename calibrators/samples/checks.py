"""Does the data make sense: normalised as the model expects, evaluation apart from calibration."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice

import numpy as np

from artefacts.errors import DataError
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.samples import Sample, Samples

__all__ = ["check_unnormalised", "overlap", "refuse_overlap"]

_LOOKED_AT = 16
_RAW = (
    "these look like raw pixels; if the model was trained on normalised images, divide by 255 and "
    "apply its mean and std"
)


def check_unnormalised(samples: Samples) -> tuple[str, ...]:
    """Warnings where inputs look unnormalised; empty where nothing is suspicious.

    The spec is judged by its numbers alone, arrays by the values of a few samples spread over all.

    Raises:
        DataError: a sample cannot be read.
    """
    spec = samples.preprocess
    warnings = [] if spec is None else list(_doubts(spec))
    looked = list(_spread(samples))
    for name in sorted(looked[0].inputs) if looked else ():
        arrays = [sample.inputs[name] for sample in looked if sample.inputs[name].size]
        if not arrays:
            warnings.append(
                f"input {name} is empty in the samples looked at, so what is calibrated knows no "
                "other; add samples in which it is not, e.g. later steps of a decoder"
            )
        if arrays and arrays[0].dtype.kind == "f":
            low, high = min(map(np.min, arrays)), max(map(np.max, arrays))
            doubt = _doubt(arrays[0].shape, float(low), float(high), spec, name)
            warnings += [f"input {name} {doubt}"] if doubt else []
    return tuple(warnings)


def _spread(samples: Samples) -> Iterator[Sample]:
    try:
        step = max(1, len(samples) // _LOOKED_AT)
    except TypeError:  # a loader
        step = 1
    return islice(samples[::step], _LOOKED_AT)


def _doubts(spec: Preprocess) -> Iterator[str]:
    """Numbers of a spec that do not belong together: a mean for 0..1 on pixels 0..255, and so on.

    Relative to white, the means of natural images lie around a half (ImageNet: 0.485, or 123.7 of
    255) and the deviations around a quarter, so either is two orders of magnitude off when the
    scale is wrong by 255.
    """
    white = 255.0 * np.abs(np.array(1.0 if spec.scale is None else spec.scale))
    for key, value in (("mean", spec.mean), ("std", spec.std)):
        share = np.max(np.abs(np.array(value))) / np.max(white)
        if key == "std" and np.all(np.array(value) == 1.0):
            continue
        if share > 20.0:
            yield (
                f"{key} {_plain(value)} is for pixels 0..255, but scale makes them "
                f"0..{np.max(white):g}; leave scale out, or divide {key} by 255"
            )
        elif 0.0 < share < 0.02:
            yield (
                f"{key} {_plain(value)} is for pixels 0..1, but they are 0..{np.max(white):g}; "
                "set 'scale: 1/255'"
            )
    untouched = spec.scale is None and spec.mean == 0.0 and spec.std == 1.0
    if untouched and spec.dtype.startswith("float") and not spec.inputs:
        yield (
            "the preprocessing spec has no scale, mean or std, so the model is fed with 0..255; "
            "set 'scale: 1/255', or 'scale: 1' if raw pixels are meant"
        )


def _plain(value: float | tuple[float, ...]) -> str:
    return ", ".join(f"{entry:g}" for entry in np.atleast_1d(np.array(value)))


def _doubt(
    shape: tuple[int, ...], low: float, high: float, spec: Preprocess | None, name: str
) -> str:
    """What is odd about an input whose values in a few samples lie in low..high, or nothing."""
    if low == high:
        return f"is {low:g} everywhere, expected values that vary; look at the data"
    image = len(shape) == 4 and (shape[1] in (1, 3) or shape[3] in (1, 3))
    if not image or (spec is not None and name in spec.inputs):
        return ""
    if spec is None:
        raw = low >= 0.0 and 16.0 < high <= 255.0
        return f"holds {low:g}..{high:g}: {_RAW}" if raw else ""
    floor, ceiling = float(spec.table.min()), float(spec.table.max())
    slack = 0.01 * (ceiling - floor)
    if low >= floor - slack and high <= ceiling + slack:
        return ""
    return (
        f"holds {low:.4g}..{high:.4g} where the preprocessing spec makes {floor:.4g}..{ceiling:.4g}"
        ": real-valued arrays are fed as they are; save uint8 images, or apply the spec to them"
    )


def overlap(calibration: Collection[str], evaluation: Iterable[Sample]) -> tuple[str, ...]:
    """Names of the evaluation samples that are calibration samples too.

    Args:
        calibration: digests of the samples that were calibrated with.
        evaluation: samples, preprocessed by the same spec.
    """
    known = frozenset(calibration)
    return tuple(sample.name for sample in evaluation if sample.digest in known)


def refuse_overlap(calibration: Collection[str], evaluation: Samples) -> None:
    """Refuse to measure accuracy on samples that were calibrated with.

    Raises:
        DataError: how many samples are in both, and the first few.
    """
    shared = overlap(calibration, evaluation)
    if shared:
        raise DataError(
            f"evaluation data {evaluation.path} holds {len(shared)} of the calibration samples "
            f"({', '.join(shared[:3])}{', …' if len(shared) > 3 else ''}), expected none, since "
            "accuracy would flatter; split the data"
        )
