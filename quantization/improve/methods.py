"""Which improvements a walk makes, and how much is tried."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["EFFORTS", "MOST_SAMPLES", "NOTHING", "UNFITTED", "Effort", "Methods"]


@dataclass(frozen=True, kw_only=True)
class Methods:
    """What is done to a network, in this order.

    Attributes:
        equalizing: bring channels of an activation to like ranges where that is exact.
        ranges: choose activation ranges by the error of their readers.
        centring: move activations to the middle of their range where that is free; with
            ``ranges`` only.
        refitting: fit weights to the INT8 input before they are rounded.
        rounding: round weights with error feedback instead of to nearest.
        biases: take each layer's mean error off its bias.
    """

    equalizing: bool = True
    ranges: bool = True
    centring: bool = True
    refitting: bool = True
    rounding: bool = True
    biases: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The methods that are on, in the order they are applied."""
        return tuple(f.name for f in dataclasses.fields(self) if getattr(self, f.name))


NOTHING = Methods(
    equalizing=False,
    ranges=False,
    centring=False,
    refitting=False,
    rounding=False,
    biases=False,
)
"""INT8 as calibration alone gives it."""
UNFITTED = Methods(refitting=False, biases=False)
"""No weight and no bias makes up for errors of layers before it: what a layer does by itself."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much an improvement may take.

    Attributes:
        samples: that it learns from at least; some of them are held out to choose by.
        most_samples: that it learns from where the network is small.
        small_macs: multiply-accumulates of a sample of a small network, for which all methods but
            refitting are tried, too: a second walk.
    """

    samples: int
    most_samples: int
    small_macs: float

    def samples_for(self, macs: int) -> int:
        """How many samples a network is fitted to: what a small one costs is not worth sparing.

        Args:
            macs: multiply-accumulates of one sample.
        """
        affordable = self.most_samples * self.small_macs / max(macs, 1)
        return int(min(max(affordable, self.samples), self.most_samples))

    def variants(self, macs: int) -> tuple[Methods, ...]:
        """What is tried on a network: calibration alone, all methods, and maybe without refitting.

        Args:
            macs: multiply-accumulates of one sample.
        """
        both = (NOTHING, Methods())
        return (*both, Methods(refitting=False)) if macs <= self.small_macs else both


MOST_SAMPLES = 160  # more only lower chance errors that are small already

EFFORTS: Mapping[str, Effort] = {
    "fast": Effort(samples=16, most_samples=16, small_macs=-1.0),
    "default": Effort(samples=96, most_samples=MOST_SAMPLES, small_macs=42e6),
    "thorough": Effort(samples=MOST_SAMPLES, most_samples=MOST_SAMPLES, small_macs=math.inf),
}
"""Words of ``--improve``. Whether a layer is fitted to its INT8 input is decided by samples that it
was not fitted to (quantization.improve.weights.fitting); the fits of a small network can follow
the noise of few samples all the same, and there a second walk takes seconds."""
