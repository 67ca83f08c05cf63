"""What the calibration samples look like, for the manifest: services hold requests against it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import engines
from calibrators import Sample, Samples
from engines.monitoring.summary import Summariser

__all__ = ["MOST_SAMPLES", "input_summaries"]

MOST_SAMPLES = 512
_OF_UNKNOWN_NUMBER = 4096


def input_summaries(samples: Samples) -> tuple[engines.InputSummary, ...]:
    """A summary of each input, over at most 512 samples spread over all.

    A second look at some of what was calibrated with: ranges need magnitudes, drift needs signs,
    channels, and how samples differ from each other.
    """
    found: dict[str, Summariser] = {}
    for sample in _spread(samples):
        for name, array in sample.inputs.items():
            if array.size:
                found.setdefault(name, Summariser(name)).add(array)
    summaries = (summariser.summary() for summariser in found.values())
    return tuple(summary for summary in summaries if summary is not None)


def _spread(samples: Samples) -> Iterable[Sample]:
    try:
        step = math.ceil(len(samples) / MOST_SAMPLES)
    except TypeError:  # a loader: only iterating tells
        return itertools.islice(samples, _OF_UNKNOWN_NUMBER)
    return samples[:: max(1, step)]
