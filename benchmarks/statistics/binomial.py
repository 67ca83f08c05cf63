"""How likely so many successes are by luck: the exact binomial tail."""

from __future__ import annotations

import math

from artefacts.errors import RequestError

__all__ = ["binomial_tail"]


def binomial_tail(successes: int, trials: int, chance: float) -> float:
    """``P(X >= successes)`` of ``X ~ Binomial(trials, chance)``: the one-sided exact test.

    Terms are added up from their logarithms (Clopper and Pearson, Biometrika 26, 1934, for the
    test), not by the normal approximation: one success more or less counts where few are expected.

    Args:
        successes: how many were seen.
        trials: of how many.
        chance: of one, above 0 and below 1.

    Raises:
        RequestError: the chance is no probability of something that may or may not happen.
    """
    if not 0 < chance < 1:
        raise RequestError(f"chance of {chance}, expected above 0 and below 1; correct it")
    if successes <= 0:
        return 1.0
    log_yes, log_no, log_all = math.log(chance), math.log1p(-chance), math.lgamma(trials + 1)
    terms = (
        log_all
        - math.lgamma(count + 1)
        - math.lgamma(trials - count + 1)
        + count * log_yes
        + (trials - count) * log_no
        for count in range(successes, trials + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))
