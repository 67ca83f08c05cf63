"""How far the answers of two engines to the same requests agree, output by output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.decibels import bounded_db, sqnr_db

__all__ = ["Agreement", "OutputAgreement"]

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class OutputAgreement:
    """One output over the requests that were compared.

    Attributes:
        name: of the output.
        same: share of the same answers: of the class with the highest score where scores are
            (N, classes), of equal values where they are whole numbers; None for other outputs.
        sqnr_db: energy of the serving engine's values over that of the difference, at most 150;
            None for whole numbers, and before the first request.
        other_shapes: requests that the two answered in different shapes (as behind NMS), which
            count in neither.
    """

    name: str
    same: float | None
    sqnr_db: float | None
    other_shapes: int


class Agreement:
    """Adds up what two engines answered."""

    def __init__(self, names: Sequence[str]) -> None:
        """``names`` are the outputs'."""
        self._outputs = {name: _Sums() for name in names}

    def add(self, served: Arrays, found: Arrays) -> None:
        """One request, answered by both."""
        for name, sums in self._outputs.items():
            sums.add(served[name], found[name])

    def report(self) -> tuple[OutputAgreement, ...]:
        """What it has come to."""
        return tuple(sums.report(name) for name, sums in self._outputs.items())


class _Sums:
    """Of one output."""

    def __init__(self) -> None:
        self._signal = self._noise = self._same = 0.0
        self._answers = self._energies = self._other_shapes = 0

    def add(self, served: NDArray[Any], found: NDArray[Any]) -> None:
        if served.shape != found.shape:
            self._other_shapes += 1
            return
        if served.dtype.kind in "biu":
            self._count(served == found)
            return
        y, x = served.astype(np.float64), found.astype(np.float64)
        with np.errstate(all="ignore"):  # NaN makes the level as low as it can be
            self._signal += float((y**2).sum())
            self._noise += float(((y - x) ** 2).sum())
        self._energies += 1
        if y.ndim == 2 and y.shape[1] > 1:
            self._count(y.argmax(axis=1) == x.argmax(axis=1))

    def _count(self, same: NDArray[Any]) -> None:
        self._same += float(same.sum())
        self._answers += same.size

    def report(self, name: str) -> OutputAgreement:
        level_db = bounded_db(sqnr_db(self._signal, self._noise)) if self._energies else None
        return OutputAgreement(
            name=name,
            same=self._same / self._answers if self._answers else None,
            sqnr_db=level_db,
            other_shapes=self._other_shapes,
        )
