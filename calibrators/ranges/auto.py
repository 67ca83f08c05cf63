"""Choosing the method by error on samples that no range was taken from.

Per tensor: the method whose range gives the smallest squared error on other samples, which needs
no second pass. For the whole model: the method whose quantized model a caller finds best.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from artefacts.errors import DataError
from calibrators.ranges.methods import check_usable, compute_range, compute_ranges
from calibrators.ranges.mse import quantization_error
from calibrators.ranges.ranges import Range, Ranges
from calibrators.samples.samples import Sample
from calibrators.statistics.statistics import Statistics, subsets_of
from calibrators.statistics.tensor_statistics import TensorStatistics, folded

__all__ = [
    "CANDIDATES",
    "MethodChoice",
    "choose_method",
    "choose_per_tensor",
    "hold_out",
]

CANDIDATES = ("minmax", "percentile:99.999", "percentile:99.99", "entropy", "mse")


@dataclass(frozen=True, kw_only=True)
class MethodChoice:
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


def choose_per_tensor(statistics: Statistics, held_out: Statistics | None = None) -> Ranges:
    """Each tensor's range by the method that errs least on samples its ranges did not see.

    Without ``held_out``, the samples judge each other: each method takes a range from the half of
    the samples that the statistics keep apart, and the other half says how much it errs; then the
    best method takes the range from all. Ties go to the larger range.

    Args:
        statistics: what ranges are taken from.
        held_out: of the same tensors over other samples.

    Raises:
        DataError: no samples, NaN or Inf, or too few samples for two halves.
        ArtefactError: samples in both, or of different graphs, preprocessings or tensors.
    """
    check_usable(statistics)
    whole = statistics
    if held_out is None:
        tried, judges, count = _halves(statistics)
    else:
        check_usable(held_out)
        whole = statistics.merge(held_out)  # refuses what does not fit, and samples in both
        tried, judges, count = statistics.tensors, held_out.tensors, len(held_out.samples)
    return Ranges(
        graph_hash=statistics.graph_hash,
        statistics_digest=whole.digest,
        method="auto",
        tensors={
            name: _choose(cell, tried[name], judges[name], count)
            for name, cell in statistics.tensors.items()
        },
        samples=len(whole.samples),
        preprocess=statistics.preprocess,
    )


def choose_method(
    statistics: Statistics,
    evaluate: Callable[[Ranges], float],
    *,
    judges: Collection[str],
    methods: Sequence[str] = CANDIDATES,
) -> MethodChoice:
    """The method whose ranges give the whole model the smallest error.

    Args:
        statistics: what ranges are taken from.
        evaluate: error of the model quantized with these ranges; smaller is better.
        judges: digests of the samples that ``evaluate`` uses.
        methods: what to try, in this order; of equal ones the first.

    Raises:
        DataError: no samples, NaN or Inf, an error that is not a number, or a sample that ranges
            were taken from among the judges.
    """
    shared = set(judges) & set(statistics.samples)
    if shared:
        raise DataError(
            f"{len(shared)} of {len(judges)} samples that judge the methods were calibrated with, "
            "expected none; hold samples out (calibrators.hold_out)"
        )
    tried = {method: compute_ranges(statistics, method=method) for method in methods}
    errors = {method: float(evaluate(ranges)) for method, ranges in tried.items()}
    usable = {method: error for method, error in errors.items() if not np.isnan(error)}
    if not usable:
        raise DataError(
            f"error of the model quantized by {', '.join(methods)} is NaN, expected a number; "
            "check the evaluation data"
        )
    return MethodChoice(ranges=tried[min(usable, key=lambda method: usable[method])], errors=errors)


def _choose(
    whole: TensorStatistics,
    tried: TensorStatistics,
    judge: TensorStatistics,
    count: int,
) -> Range:
    """The range of ``whole`` by the method that, on ``tried``, errs least on ``judge``."""
    methods = CANDIDATES
    if whole.is_dead or whole.is_constant or tried.is_dead:
        return compute_range(whole, methods[0])
    amax = np.array([compute_range(tried, method).amax for method in methods])
    errors = quantization_error(judge, amax) if judge.count else np.zeros(len(methods))
    best = min(range(len(methods)), key=lambda place: (errors[place], -amax[place]))
    scores = ", ".join(f"{m} {e:.3g}" for m, e in zip(methods, errors, strict=True))
    return replace(
        compute_range(whole, methods[best]),
        why=f"squared error on {count} samples held out: {scores}",
    )


def _halves(
    statistics: Statistics,
) -> tuple[Mapping[str, TensorStatistics], Mapping[str, TensorStatistics], int]:
    """Statistics of the half that is kept apart, of the others, and the number of the others."""
    others = 0
    if statistics.subsets:
        others = sum(subsets_of(digest) == 0 for digest in statistics.samples)
    if not 0 < others < len(statistics.samples):
        raise DataError(
            f"{len(statistics.samples)} samples do not make two halves to choose a method by, "
            "expected at least one in each; give more samples, statistics of others held out, or "
            "a method other than auto"
        )
    half = statistics.subsets[0]
    rest = {name: _without(cell, half[name]) for name, cell in statistics.tensors.items()}
    return half, rest, others


def _without(whole: TensorStatistics, part: TensorStatistics) -> TensorStatistics:
    """What is left of the counts when a part is taken away.

    The largest value is exact unless the part holds that of the whole; then only its bin is known.
    """
    counts = whole.counts - folded(part.counts, whole.exponent - part.exponent)
    (used,) = np.nonzero(counts)
    top = float(used[-1] + 1) * whole.bin_width if used.size else 0.0
    amax = whole.amax if part.amax < whole.amax else min(top, whole.amax)
    return TensorStatistics(
        counts=counts,
        exponent=whole.exponent,
        count=whole.count - part.count,
        zeros=whole.zeros - part.zeros,
        max=amax,
    )
