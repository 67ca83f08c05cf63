"""Counters of a pool."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PoolStatistics"]


@dataclass(frozen=True, kw_only=True)
class PoolStatistics:
    """What a pool has done, for a metrics endpoint. Counters only grow.

    Attributes:
        size: engines of the pool.
        in_use: engines that work now.
        waiting: requests that wait for one now.
        served: requests that were answered.
        failed: requests that an engine refused or could not run.
        rejected: requests turned away because too many waited already.
        timed_out: requests whose time was up, waiting or running.
        not_finite: those of ``failed`` with NaN or infinite values (``check_inputs``).
        failed_in_row: the last so many that ran failed for no fault of theirs; 0 after an answer.
        wait_s: time that lent engines were waited for, all requests together.
        run_s: time that engines were lent, all requests together.
    """

    size: int
    in_use: int
    waiting: int
    served: int
    failed: int
    rejected: int
    timed_out: int
    not_finite: int
    failed_in_row: int
    wait_s: float
    run_s: float
