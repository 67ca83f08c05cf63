"""Statistics of inputs of which nothing else is kept: counts by powers of two, and extremes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ValueCounts"]


@dataclass(kw_only=True)
class ValueCounts:
    """Of one input over many requests; two are added by adding their counts.

    Attributes:
        requests: that were counted.
        values: finite ones.
        zeros: among them.
        not_finite: NaN and infinite values.
        min: smallest finite value; None before the first.
        max: largest finite value; None before the first.
        below: k → values with 2^(k-1) <= |x| < 2^k.
    """

    requests: int = 0
    values: int = 0
    zeros: int = 0
    not_finite: int = 0
    min: float | None = None
    max: float | None = None
    below: Counter[int] = field(default_factory=Counter)

    def add(self, array: NDArray[Any]) -> None:
        """Count all values of a request."""
        values = array.astype(np.float64).ravel()
        finite = values[np.isfinite(values)]
        self.requests += 1
        self.values += finite.size
        self.not_finite += values.size - finite.size
        if not finite.size:
            return
        low, high = float(finite.min()), float(finite.max())
        self.min = low if self.min is None else min(self.min, low)
        self.max = high if self.max is None else max(self.max, high)
        nonzero = finite[finite != 0]
        self.zeros += finite.size - nonzero.size
        exponents, counts = np.unique(np.frexp(nonzero)[1], return_counts=True)
        self.below.update(dict(zip(exponents.tolist(), counts.tolist(), strict=True)))

    def to_json(self) -> dict[str, Any]:
        """As ``inputs.json`` has it; bounds of the bins as powers of two."""
        bins = {f"2^{exponent}": self.below[exponent] for exponent in sorted(self.below)}
        return {**vars(self), "below": bins}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ValueCounts:
        """From what ``inputs.json`` has.

        Raises:
            KeyError, TypeError, ValueError: it is of another form.
        """
        below = Counter({int(name.removeprefix("2^")): n for name, n in data["below"].items()})
        found = cls(**{**data, "below": below})
        if not all(math.isfinite(bound) for bound in (found.min, found.max) if bound is not None):
            raise ValueError(f"range {found.min} to {found.max}")
        return found
