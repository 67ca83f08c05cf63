"""What statistics and ranges tell a person: what is clipped, what is odd, whether samples sufficed.

All of it is arithmetic on statistics that were kept anyway: no second pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from artefacts.decibels import sqnr_db
from artefacts.words import counted
from calibrators.ranges.methods import check_usable, compute_range
from calibrators.ranges.mse import quantization_error
from calibrators.ranges.ranges import Ranges
from calibrators.statistics.statistics import Statistics, subsets_of
from calibrators.statistics.tensor_statistics import TensorStatistics

__all__ = ["Convergence", "TensorReport", "clipped_share", "convergence", "describe"]

ENOUGH_CHANGE = 0.05  # ranges that more samples move by less than this are taken as settled
_ENOUGH_SHARE = 0.95  # of the tensors
# A largest value this many times the 99.99th percentile: a few values set the range of minmax.
_OUTLIER_FACTOR = 4.0


@dataclass(frozen=True, kw_only=True)
class TensorReport:
    """One tensor under its range.

    Attributes:
        name: of the tensor.
        amax: of its range.
        largest: largest |x| seen.
        clipped_share: share of the values beyond the range, which INT8 saturates.
        zero_share: share of the values that are zero.
        sqnr_db: signal to quantization noise, 10 log10(mean square / mean squared error); inf
            where there is no error.
        remark: "", "dead", "constant", or "outliers".
    """

    name: str
    amax: float
    largest: float
    clipped_share: float
    zero_share: float
    sqnr_db: float
    remark: str


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """How ranges change with the number of samples.

    Attributes:
        samples: number of samples in each part, rising; the last is all.
        settled_share: for each part, share of the tensors whose range is within 5 % of the final.
        worst: for each part, the tensor that differs most and by which share of its final range.
    """

    samples: tuple[int, ...]
    settled_share: tuple[float, ...]
    worst: tuple[tuple[str, float], ...]

    @property
    def enough(self) -> int | None:
        """Samples of the smallest part whose ranges had settled; None where only all had."""
        for samples, share in zip(self.samples[:-1], self.settled_share[:-1], strict=True):
            if share >= _ENOUGH_SHARE:
                return samples
        return None

    def __str__(self) -> str:
        if len(self.samples) == 1:
            found = (
                f"{counted(self.samples[0], 'sample')} {'is' if self.samples[0] == 1 else 'are'}"
            )
            return f"{found} too few to tell whether they were enough"
        name, change = self.worst[-2]
        if self.enough is not None:
            return f"{self.enough} of {self.samples[-1]} samples were enough for these ranges"
        return (
            f"ranges had not settled: with {self.samples[-2]} of {self.samples[-1]} samples "
            f"{1 - self.settled_share[-2]:.0%} of the tensors differ by more than 5 % "
            f"(most: {name}, {change:.0%}); more samples would help"
        )


def clipped_share(statistics: TensorStatistics, amax: float) -> float:
    """Share of the values with |x| > amax, values taken as evenly spread within a bin."""
    if statistics.count == 0 or amax >= statistics.amax:
        return 0.0
    place = amax / statistics.bin_width
    bin_index = math.floor(place)
    inside = (bin_index + 1 - place) * float(statistics.counts[bin_index])
    return (float(statistics.counts[bin_index + 1 :].sum()) + inside) / statistics.count


def describe(statistics: Statistics, ranges: Ranges) -> list[TensorReport]:
    """A report of each tensor that has statistics and a range, by falling clipped share."""
    reports = [
        _describe(name, cell, ranges.tensors[name].amax)
        for name, cell in statistics.tensors.items()
        if name in ranges.tensors
    ]
    return sorted(reports, key=lambda report: (-report.clipped_share, report.name))


def convergence(statistics: Statistics, *, method: str) -> Convergence:
    """Compare the ranges of about 1/4 and 1/2 of the samples with those of all.

    Raises:
        InputError: no such method.
        DataError: the statistics have seen no sample, or NaN or Inf.
    """
    check_usable(statistics)
    samples, settled, worst = [], [], []
    for level in range(len(statistics.subsets), 0, -1):
        count = sum(subsets_of(digest) >= level for digest in statistics.samples)
        if count == 0 or count == len(statistics.samples) or not statistics.tensors:
            continue
        part = statistics.subsets[level - 1]
        changes = {n: _change(part[n], cell, method) for n, cell in statistics.tensors.items()}
        samples.append(count)
        settled.append(float(np.mean([change <= ENOUGH_CHANGE for change in changes.values()])))
        worst.append(max(changes.items(), key=lambda entry: entry[1]))
    return Convergence(
        samples=(*samples, len(statistics.samples)),
        settled_share=(*settled, 1.0),
        worst=(*worst, ("", 0.0)),
    )


def _change(part: TensorStatistics, whole: TensorStatistics, method: str) -> float:
    """Relative change of a tensor's range from a part of the samples to all."""
    if part.is_dead or whole.is_dead:
        return float(part.is_dead != whole.is_dead)
    final = compute_range(whole, method).amax
    return abs(compute_range(part, method).amax - final) / final


def _describe(name: str, cell: TensorStatistics, amax: float) -> TensorReport:
    error = float(quantization_error(cell, np.array([amax]))[0]) if cell.count else 0.0
    signal = cell.sum_squares / max(cell.count, 1)
    return TensorReport(
        name=name,
        amax=amax,
        largest=cell.amax,
        clipped_share=clipped_share(cell, amax),
        zero_share=cell.zeros / max(cell.count, 1),
        sqnr_db=sqnr_db(signal, error) if signal > 0 else math.inf,
        remark=_remark(cell),
    )


def _remark(cell: TensorStatistics) -> str:
    if cell.is_dead:
        return "dead"
    if cell.is_constant:
        return "constant"
    usual = compute_range(cell, "percentile:99.99").amax
    return "outliers" if cell.amax > _OUTLIER_FACTOR * usual else ""
