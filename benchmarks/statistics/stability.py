"""Is a run long and steady enough for its figures to be quoted?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.statistics.bootstrap import bootstrap_figures, draw_rounds, interval_of
from benchmarks.statistics.percentiles import Floats

__all__ = ["Stability", "judge_stability", "settled"]

_SPREAD_LIMIT = 0.025  # trtexec warns above this coefficient of variation
_DRIFT_LIMIT = 0.05
_SLICES = 3  # of the warm-up that must agree
_TOLERANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Stability:
    """The verdict on one system's rounds, with what was found.

    ``spread`` is the half-width of the 95 % interval of the median, ``drift`` the difference
    between the medians of the first and the last third of the rounds; both relative to the median,
    and None where there were too few rounds to tell. ``two_modes``: the latencies
    have two modes, and the median is one or the other by their mix; a ratio of such medians means
    nothing.
    """

    stable: bool
    spread: float | None
    drift: float | None
    two_modes: bool = False
    reasons: tuple[str, ...] = ()


def judge_stability(groups: Sequence[Floats]) -> Stability:
    """Whether the rounds of one system agree.

    Stable means all of: the median is known to within 2.5 %, the last third of the rounds does not
    differ from the first by more than 5 %, and the latencies have one mode.

    Args:
        groups: one array of latencies per round, in the order of time.
    """
    if len(groups) < 6:
        reason = f"only {len(groups)} rounds, at least 6 are needed to judge"
        return Stability(stable=False, spread=None, drift=None, reasons=(reason,))
    medians = np.array([np.median(group) for group in groups])
    resampled = bootstrap_figures(groups, (50.0,), draw_rounds(len(groups), 150))[:, 0]
    interval = interval_of(resampled)
    centre = float(np.median(medians))
    spread = (interval.high - interval.low) / 2 / centre
    third = len(groups) // 3
    drift = float(np.median(medians[-third:]) - np.median(medians[:third])) / centre
    reasons = _modes(np.concatenate(groups))
    two_modes = bool(reasons)
    if spread > _SPREAD_LIMIT:
        found, wanted = 100 * spread, 100 * _SPREAD_LIMIT
        reasons.append(f"the median is known to ±{found:.1f} % only, expected ±{wanted:.1f} %")
    if abs(drift) > _DRIFT_LIMIT:
        reasons.append(
            f"latency drifted by {100 * drift:+.1f} % from the first to the last third, "
            f"expected at most {100 * _DRIFT_LIMIT:.1f} %"
        )
    return Stability(
        stable=not reasons,
        spread=spread,
        drift=drift,
        two_modes=two_modes,
        reasons=tuple(reasons),
    )


def _modes(samples: Floats) -> list[str]:
    """A reason, where a tenth of the samples spans most of what lies between p20 and p80.

    The widest tenth takes 0.19 of that span for a normal, 0.29 for an exponential distribution,
    and nearly all of it where a quarter or more of the queries take another path: there the
    median is one path or the other by their mix.
    """
    # Samples, not points between two of them: those would split a gap that lies at a decile.
    deciles = np.percentile(samples, [20, 30, 40, 50, 60, 70, 80], method="lower")
    steps = np.diff(deciles)
    widest = int(np.argmax(steps))
    span = deciles[-1] - deciles[0]
    if steps[widest] <= 2 * _SPREAD_LIMIT * deciles[3] or steps[widest] <= 0.6 * span:
        return []
    return [
        f"latencies have two modes, near {deciles[widest]:.4g} and {deciles[widest + 1]:.4g} ms, "
        "expected one; look for a clock, a path or a neighbour that switches"
    ]


def settled(medians: Sequence[float]) -> bool:
    """Whether the last three medians lie within 5 % of their middle one.

    Args:
        medians: one median per warm-up slice, in the order of time.
    """
    last = np.array(medians[-_SLICES:])
    middle = float(np.median(last)) if last.size else 0.0
    return last.size == _SLICES and bool(np.all(np.abs(last - middle) <= _TOLERANCE * middle))
