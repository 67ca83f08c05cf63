"""Choosing the method by error on samples that no range was taken from.

Per tensor: the method whose range gives the smallest squared error on held-out samples. For the
whole model: the method whose quantized model a caller finds best on held-out samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from artefacts.errors import DataError
from calibrators.methods import check_usable, compute_range, compute_ranges
from calibrators.mse import quantization_error
from calibrators.ranges import Range, Ranges
from calibrators.samples import Sample
from calibrators.statistics import Statistics
from calibrators.tensor_statistics import TensorStatistics

__all__ = [
    "CANDIDATES",
    "Choice",
    "choose_method",
    "choose_per_tensor",
    "hold_out",
]

CANDIDATES = ("minmax", "percentile:99.999", "percentile:99.99", "entropy", "mse")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A method for the whole model.

    Attributes:
        ranges: by the best method.
        errors: method → the caller's error, in the order tried.
    """

    ranges: Ranges
    errors: Mapping[str, float]


class _Part:
    """The samples of a source whose digest is, or is not, in a set; read again each time."""

    def __init__(self, samples: Iterable[Sample], held_out: frozenset[str], wanted: bool) -> None:
        self._samples = samples
        self._held_out = held_out
        self._wanted = wanted

    def __iter__(self) -> Iterator[Sample]:
        return (s for s in self._samples if (s.digest in self._held_out) == self._wanted)


def hold_out(
    samples: Iterable[Sample], *, share: float = 0.2
) -> tuple[Iterable[Sample], Iterable[Sample]]:
    """Split samples into those to calibrate with and those held out.

    Digests decide, so the split does not depend on the order, and equal samples stay together.

    Args:
        samples: a source that can be iterated several times; all are read once here.
        share: of the samples to hold out, at least one.

    Raises:
        DataError: fewer than two different samples.
    """
    digests = sorted({sample.digest for sample in samples})
    if len(digests) < 2:
        raise DataError(
            f"{len(digests)} different samples, expected at least 2 to hold one out; give more "
            "samples or name a method other than auto"
        )
    count = min(max(round(share * len(digests)), 1), len(digests) - 1)
    held_out = frozenset(digests[:count])
    return _Part(samples, held_out, False), _Part(samples, held_out, True)


def choose_per_tensor(
    statistics: Statistics, held_out: Statistics, *, methods: Sequence[str] = CANDIDATES
) -> Ranges:
    """Each tensor's range by the method that errs least on the held-out samples.

    Ties go to the larger range.

    Args:
        statistics: what ranges are taken from.
        held_out: of the same tensors over other samples.
        methods: what to choose from.

    Raises:
        DataError: no samples, NaN or Inf, or samples in both.
        ArtefactError: the two are of different graphs, preprocessings or tensors.
    """
    check_usable(statistics)
    check_usable(held_out)
    merged = statistics.merge(held_out)  # refuses what does not fit, and samples in both
    return Ranges(
        graph_hash=statistics.graph_hash,
        statistics_digest=merged.digest,
        method="auto",
        tensors={
            name: _choose(cell, held_out.tensors[name], methods)
            for name, cell in statistics.tensors.items()
        },
        samples=len(merged.samples),
        preprocess=statistics.preprocess,
    )


def choose_method(
    statistics: Statistics,
    evaluate: Callable[[Ranges], float],
    *,
    methods: Sequence[str] = CANDIDATES,
) -> Choice:
    """The method whose ranges give the whole model the smallest error.

    Args:
        statistics: what ranges are taken from.
        evaluate: error of the model quantized with these ranges, on samples that are not among
            ``statistics.samples``; smaller is better.
        methods: what to try, in this order; of equal ones the first.

    Raises:
        DataError: no samples, NaN or Inf, or an error that is not a number.
    """
    tried = {method: compute_ranges(statistics, method=method) for method in methods}
    errors = {method: float(evaluate(ranges)) for method, ranges in tried.items()}
    usable = {method: error for method, error in errors.items() if not np.isnan(error)}
    if not usable:
        raise DataError(
            f"error of the model quantized by {', '.join(methods)} is NaN, expected a number; "
            "check the evaluation data"
        )
    return Choice(ranges=tried[min(usable, key=lambda method: usable[method])], errors=errors)


def _choose(cell: TensorStatistics, held_out: TensorStatistics, methods: Sequence[str]) -> Range:
    found = {method: compute_range(cell, method) for method in methods}
    first = found[methods[0]]
    if cell.is_dead or cell.is_constant or not held_out.count:
        return first
    amax = np.array([entry.amax for entry in found.values()])
    errors = quantization_error(held_out, amax)
    best = min(range(len(methods)), key=lambda place: (errors[place], -amax[place]))
    scores = ", ".join(f"{m} {e:.3g}" for m, e in zip(methods, errors, strict=True))
    return Range(
        amax=float(amax[best]), method=methods[best], why=f"squared error held out: {scores}"
    )
