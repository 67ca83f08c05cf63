"""Queries made of samples: real ones, several, all of the same length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.systems import System
from calibrators.samples.data import InputSpec, Samples, batches

__all__ = ["Feed", "common_inputs", "feeds_of", "length_of", "stack"]

QUERIES = 16  # distinct queries that timings cycle through
Feed = dict[str, npt.NDArray[np.generic]]


def common_inputs(systems: Sequence[System]) -> tuple[InputSpec, ...]:
    """The inputs of a system with a fixed batch, if there is one: its batch wins."""
    return next((s for s in systems if not s.free_batch), systems[0]).inputs


def feeds_of(systems: Sequence[System], samples: Samples, batch: int) -> list[Feed]:
    """Batches of different samples, for the timings."""
    chosen = list(samples[: QUERIES * batch])
    # Queries are alike: fewer samples than a batch are repeated, a shorter last batch is left out.
    chosen *= -(-batch // len(chosen)) if chosen else 0
    found = [entry.inputs for entry in batches(chosen, batch, inputs=common_inputs(systems))]
    return [feed for feed in found if length_of(feed) == length_of(found[0])]


def length_of(feed: Feed) -> int:
    """Images in a query."""
    first = next(iter(feed.values()))
    return first.shape[0] if first.ndim else 1


def stack(feeds: Sequence[Feed]) -> Feed:
    """Several images in one query."""
    if len(feeds) == 1:
        return feeds[0]
    return {key: np.concatenate([feed[key] for feed in feeds]) for key in feeds[0]}
