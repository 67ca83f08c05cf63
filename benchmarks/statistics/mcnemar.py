"""McNemar's exact test: do two classifiers differ on the same samples?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from artefacts.errors import RequestError
from benchmarks.statistics.binomial import binomial_tail

__all__ = ["McNemar", "mcnemar"]


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Samples that only one of the two got right, and how likely so uneven a split is by chance."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first_right: npt.ArrayLike, second_right: npt.ArrayLike) -> McNemar:
    """Exact two-sided test on the discordant pairs (McNemar, Psychometrika 12, 1947).

    Under "no difference" each of the n = b + c samples that only one got right falls to either
    side with probability 1/2, so ``p = min(1, 2 * P(Binomial(n, 1/2) >= max(b, c)))``. The exact
    form, not the chi-squared approximation: INT8 and FP32 rarely disagree on 25 samples.

    Args:
        first_right: whether the first system was right, per sample (n,).
        second_right: the same for the second system (n,).

    Raises:
        RequestError: different numbers of samples.
    """
    first, second = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    if first.shape != second.shape:
        raise RequestError(
            f"McNemar's test got {first.size} and {second.size} samples, expected the same; "
            "evaluate both systems on the same samples"
        )
    only_first = int(np.sum(first & ~second))
    only_second = int(np.sum(~first & second))
    discordant = only_first + only_second
    tail = binomial_tail(max(only_first, only_second), discordant, 0.5)
    return McNemar(
        only_first=only_first,
        only_second=only_second,
        p_value=min(1.0, 2 * tail),
    )
