"""What a search is given, and keeps: the network, what to reach, what it may take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from artefacts.errors import InputError
from quantization.improve.improved import Improved
from quantization.measure.execution import Arrays, Load, load_int8
from quantization.placement import Placement

__all__ = ["ROUNDING", "Fit", "Goal", "Point", "Refit", "Score", "Search"]

ROUNDING = 1e-9

Score = Callable[[onnx.ModelProto], float]
"""A Q/DQ model in, its score out; larger is better."""

Fit = Callable[[Callable[[int, int], None]], Improved]
"""Makes a network; calls what it is given with steps done and their number, which may raise."""

Refit = Callable[[Placement, Callable[[int, int], None]], Improved]
"""The same for a placement that leaves layers in float."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The promise.

    Attributes:
        minimum: smallest score that keeps it.
        unit: of the score, e.g. "dB SQNR", "points of top1".
        drop: the score is a drop with its sign turned, and is said as one.
    """

    minimum: float
    unit: str
    drop: bool = False

    def __str__(self) -> str:
        return self.say(self.minimum)

    def kept(self, score: float) -> bool:
        """Whether a score keeps the promise; 73.5 % less 73.0 % is 0.5, whatever floats say."""
        return score >= self.minimum - ROUNDING

    def say(self, score: float) -> str:
        """A score in words, e.g. ``21.5 dB SQNR``, ``a drop of 0.4 points of top1``."""
        if self.drop:
            return f"a drop of {0.0 - score:.4g} {self.unit}"
        return f"{score:.4g} {self.unit}"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mixed-precision candidate that was scored.

    Attributes:
        released: names of the groups in float, sorted.
        cost: what they give back, in the unit of the costs.
        score: of the whole network.
        int8_share: share of the multiply-accumulates that stay in INT8, 0 to 1.
    """

    released: tuple[str, ...]
    cost: float
    score: float
    int8_share: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """One search.

    Attributes:
        reference: the prepared float network.
        improved: the network and everything INT8 needs, from ``improve`` or ``improve_layers``.
        placement: of it, with every layer that may be INT8 in INT8.
        samples: feeds of the selection part, one sample each, for the sensitivities.
        score: judges a Q/DQ model on the selection part.
        goal: what to reach.
        saved_ms: layer name → milliseconds that INT8 saves on the target, or what measures them
            once a layer must stay in float; None counts multiply-accumulates. Groups that are
            missing save nothing.
        least_int8: share of the multiply-accumulates that must stay in INT8, 0 to 1.
        refit: improves the network for a placement that leaves layers in float, the same one for
            the same placement; None keeps what was fitted with all layers in INT8.
        unfitted: makes the network without refitted weights and biases, for the sensitivities;
            None takes them from ``improved``.
        limit_s: stop with the best found after so many seconds.
        state: a file to continue from and to keep up to date.
        state_key: what else the scores depend on, e.g. digests of the samples.
        load_quantized: runs Q/DQ models.
        report: called with every candidate scored.
        progress: called with sensitivities done and their number.

    Raises:
        InputError: the time limit is not positive, or a share is none.
    """

    reference: onnx.ModelProto
    improved: Improved
    placement: Placement
    samples: Sequence[Arrays]
    score: Score
    goal: Goal
    saved_ms: Mapping[str, float] | Callable[[], Mapping[str, float] | None] | None = None
    least_int8: float = 0.0
    refit: Refit | None = None
    unfitted: Fit | None = None
    limit_s: float | None = None
    state: Path | None = None
    state_key: str = ""
    load_quantized: Load = load_int8
    report: Callable[[Point], None] | None = None
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Refuse limits that no search could keep."""
        if self.limit_s is not None and self.limit_s <= 0:
            raise InputError(f"search time is {self.limit_s} s, expected more than 0; give it time")
        if not 0 <= self.least_int8 <= 1:
            raise InputError(
                f"share that must stay in INT8 is {self.least_int8}, expected 0 to 1; correct it"
            )

    @property
    def key(self) -> str:
        """What every score depends on."""
        ranges, unsigned = self.improved.ranges, bool(self.placement.unsigned)
        made_of = (ranges.digest, ranges.graph_hash, self.goal.unit, str(unsigned))
        return " ".join((*made_of, self.state_key))
