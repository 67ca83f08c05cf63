"""Likeness of outputs to a reference's, without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from artefacts.decibels import LIMIT_DB, sqnr_db

__all__ = ["Agreement", "AgreementScorer", "OutputAgreement"]


@dataclass(frozen=True, kw_only=True)
class OutputAgreement:
    """One output tensor against the reference's.

    Attributes:
        sqnr_db: ``10 log10(sum ref^2 / sum (ref - x)^2)`` over all samples; None where equal, and
            at least -150, which stands for nothing but noise.
        cosine: mean over samples of the cosine between the two outputs.
        max_abs_error: largest absolute difference.
    """

    sqnr_db: float | None
    cosine: float
    max_abs_error: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A system against the reference.

    Attributes:
        reference: the system compared with.
        outputs: output name → likeness, of outputs that hold floats and keep their shape.
        top1: share of samples with the same largest class, or of equal integers in the first output
            where all hold integers; None where no output holds class scores or classes.
    """

    reference: str
    outputs: dict[str, OutputAgreement]
    top1: float | None = None


class AgreementScorer:
    """Sums what the figures need; outputs are not kept."""

    def __init__(self, reference: str) -> None:
        self._reference = reference
        self._signal: dict[str, float] = {}
        self._noise: dict[str, float] = {}
        self._largest: dict[str, float] = {}
        self._cosines: dict[str, list[float]] = {}
        self._same: dict[str, list[float]] = {}
        self._differing: set[str] = set()

    def add(
        self,
        reference: Mapping[str, npt.NDArray[np.generic]],
        found: Mapping[str, npt.NDArray[np.generic]],
    ) -> None:
        """Compare the outputs of one batch, batch axis first in both.

        Integers (classes, counts) have no signal and noise: beside floats they are left out, by
        themselves they are the same or not. An output whose shape differs but once (the boxes that
        are left over) is left out, too: the other samples would flatter. Of one without elements
        there is nothing to compare.
        """
        shared = [name for name in reference if name in found]
        self._differing.update(n for n in shared if reference[n].shape != found[n].shape)
        floats = [name for name in shared if reference[name].dtype.kind == "f"]
        for name in floats or shared:
            if name in self._differing or not reference[name].size:
                continue
            expected, got = (np.atleast_1d(outputs[name]) for outputs in (reference, found))
            if floats:
                self._add_output(name, expected.astype(np.float64), got.astype(np.float64))
            else:
                equal = (expected == got).reshape(len(expected), -1)
                self._same.setdefault(name, []).extend(equal.mean(axis=1).tolist())

    def _add_output(
        self, name: str, expected: npt.NDArray[np.float64], got: npt.NDArray[np.float64]
    ) -> None:
        rows, other = expected.reshape(len(expected), -1), got.reshape(len(got), -1)
        error = rows - other
        self._signal[name] = self._signal.get(name, 0.0) + float(np.sum(rows**2))
        self._noise[name] = self._noise.get(name, 0.0) + float(np.sum(error**2))
        self._largest[name] = max(self._largest.get(name, 0.0), float(np.max(np.abs(error))))
        norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(other, axis=1)
        dots = np.sum(rows * other, axis=1)
        # Two zero vectors are alike; a zero and a non-zero one are not.
        both_zero = ~np.any(rows, axis=1) & ~np.any(other, axis=1)
        cosines = np.where(both_zero, 1.0, dots / np.where(norms == 0, 1.0, norms))
        self._cosines.setdefault(name, []).extend(cosines.tolist())
        if expected.ndim == 2 and expected.shape[1] > 1:
            equal = rows.argmax(axis=1) == other.argmax(axis=1)
            self._same.setdefault(name, []).extend(equal.astype(float).tolist())

    def result(self) -> Agreement:
        """The likeness of every output that both systems have."""
        answers = [same for name, same in self._same.items() if name not in self._differing]
        return Agreement(
            reference=self._reference,
            outputs={
                name: OutputAgreement(
                    sqnr_db=_level(self._signal[name], self._noise[name]),
                    cosine=float(np.mean(self._cosines[name])),
                    max_abs_error=self._largest[name],
                )
                for name in self._cosines
                if name not in self._differing
            },
            top1=float(np.mean(answers[0])) if answers else None,
        )


def _level(signal: float, noise: float) -> float | None:
    """Signal over noise; None where there is no noise."""
    return None if noise == 0 else max(sqnr_db(signal, noise), -LIMIT_DB)
