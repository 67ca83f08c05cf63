"""What a pool says to requests that it does not run."""

from __future__ import annotations

import os

from artefacts.errors import BusyError, ClosedError, InputError

__all__ = ["check_sizes", "pool_closed", "pool_full", "pool_inherited", "request_late"]


def check_sizes(size: int, max_waiting: int | None) -> None:
    """Refuse a pool that makes no sense.

    Raises:
        InputError: no engine, or fewer than no requests that wait.
    """
    if size < 1 or (max_waiting is not None and max_waiting < 0):
        raise InputError(
            f"pool has size {size} and max_waiting {max_waiting}, expected at least 1 engine "
            "and 0 waiting requests; correct them"
        )


def pool_full(size: int, waiting: int, most: int) -> BusyError:
    """Too many wait already."""
    return BusyError(
        f"pool of {size} engines has {waiting} requests waiting, expected at most {most}; retry "
        "later, or make the pool or max_waiting larger"
    )


def request_late(timeout_s: float | None, doing: str) -> BusyError:
    """Its time was up, waiting or running."""
    return BusyError(
        f"request was still {doing} after {timeout_s} s, expected an answer by then; retry, "
        "allow more time, or make the pool larger"
    )


def pool_closed() -> ClosedError:
    """Nothing is answered any more."""
    return ClosedError("engine pool is closed, expected an open one; make a new one")


def pool_inherited(process: int) -> ClosedError:
    """It belongs to the process that this one is a fork of."""
    return ClosedError(
        f"engine pool was made in process {process} and used in {os.getpid()}, its fork, expected "
        "one process; make the pool in the process that uses it"
    )
