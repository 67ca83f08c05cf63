"""Which improvements a walk makes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

__all__ = ["NOTHING", "UNFITTED", "Methods"]


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
