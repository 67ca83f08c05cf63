"""An engine held against the graph it was made from: what a runtime computes otherwise.

An INT8 graph has no second meaning, but engines may differ from it by rounding: sums in another
order, or a rounding that a kernel leaves out, move a value across a step here and there, and every
layer behind sees it. At the most both are independent roundings of one network, each as far from
the float network as the graph is, and then the noise between them is twice that of the graph:

    SQNR(engine, graph) >= SQNR(graph, float) - 3 dB

That holds on average; a few numbers, such as two class scores, may lie on opposite sides of those
of the float network, and where fewer than 64 hold the difference d they are held to twice the
error, 6 dB: (sum d^2)^2 / sum d^4 says how many. Of the probabilities of a confident reader of
lines, 6 million numbers, those are the four where it doubts. So is an engine that is no farther
from the float network than its graph: it is as right.

Some networks make more of it: what moves one value across a step moves thousands in the end. An
engine that misses its limit is held to what chance does to the graph itself, its scales changed by
a millionth (quantization.measure.jitter), less the same 3 dB.

A graph very near the float network is held to 60 dB, and one so far from it that the limit would
say nothing, to 10 dB. Between, where the graph keeps 10 dB or more and the engine's own noise is at
most twice the graph's, they may be as far from each other as both together, and a decibel: residual
networks of 13 dB, whose sums OpenVINO rounds once where the graph says twice. Engines in floating
point are held to 60 dB, in 16 bits to 25 dB (bfloat16 has 8 bits: 50 dB at each layer). Measured
with OpenVINO 2026.4.1 on networks of docs/benchmarking: engines that saturate miss it by 9 to 30
dB, right ones keep it with 4 to 16 dB to spare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.decibels import bounded_db, sqnr_db

__all__ = ["FLOAT_LIMIT_DB", "HALF_LIMIT_DB", "Gap", "GapMeter", "allow_chance", "farthest_first"]

Arrays = Mapping[str, NDArray[Any]]
FLOAT_LIMIT_DB = 60.0
HALF_LIMIT_DB = 25.0
_ALLOWED_DB = 3.0  # twice the noise
_OPPOSITE_DB = 20 * math.log10(2) + 0.01  # twice the error; a hundredth for how that is computed
_FEW_NUMBERS = 64
_LEAST_LIMIT_DB = 10.0
_AS_NEAR = 2.0  # times the noise of the graph
_CHANCE_DB = 1.0  # of a few requests


@dataclass(frozen=True, kw_only=True)
class Gap:
    """One output of an engine against its graph.

    Attributes:
        output: name of the output.
        batch: samples at once.
        sqnr_db: of the engine against the graph; 150 where they are equal.
        limit_db: what rounding explains.
    """

    output: str
    batch: int
    sqnr_db: float
    limit_db: float

    @property
    def margin_db(self) -> float:
        """How far above its limit it is; negative where rounding does not explain it."""
        return self.sqnr_db - self.limit_db

    @property
    def explained(self) -> bool:
        """Whether rounding explains the difference."""
        return self.sqnr_db >= self.limit_db


@dataclass(kw_only=True)
class GapMeter:
    """Adds up signal and noise of each output, for one batch size.

    Attributes:
        batch: samples at once.
        limit_db: for an engine in floating point; None takes it from the graph's own noise.
    """

    batch: int
    limit_db: float | None = None
    _sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def add(
        self, plain: Arrays | None, graph: Arrays, engine: Arrays, names: Iterable[str]
    ) -> None:
        """Take in one batch.

        Args:
            plain: outputs of the float network; None where there is none.
            graph: of the graph as it is written.
            engine: of the engine.
            names: the outputs to compare.
        """
        for name in names:
            written, found = graph[name], engine[name]
            noise, fourth = math.inf, 0.0
            if found.shape == written.shape:
                noise, fourth = _noise(written, found), _noise(written, found, power=4)
            own = 0.0 if plain is None else _noise(plain[name], written)
            # Where its shape differs, or nothing is known of the float network, it is no excuse.
            judged = plain is not None and found.shape == plain[name].shape
            engines_own = _noise(plain[name], found) if plain and judged else math.inf
            signal = float((_finite(written) ** 2).sum())
            before = self._sums.get(name, np.zeros(5))
            self._sums[name] = before + np.array([signal, noise, own, engines_own, fourth])

    def gaps(self) -> tuple[Gap, ...]:
        """Every output, the farthest from its limit first."""
        found = [
            Gap(
                output=name,
                batch=self.batch,
                sqnr_db=bounded_db(sqnr_db(signal, noise)),
                limit_db=self._limit(signal, own, engines_own, few=_few(noise, fourth)),
            )
            for name, (signal, noise, own, engines_own, fourth) in self._sums.items()
        ]
        return farthest_first(found)

    def _limit(self, signal: float, own: float, engines_own: float, *, few: bool) -> float:
        if self.limit_db is not None:
            return self.limit_db
        twice = engines_own <= own or few
        allowed = _OPPOSITE_DB if twice else _ALLOWED_DB
        kept = bounded_db(sqnr_db(signal, own))
        if kept < _LEAST_LIMIT_DB or not 0 < engines_own <= _AS_NEAR * own:
            return min(max(kept - allowed, _LEAST_LIMIT_DB), FLOAT_LIMIT_DB)
        both = bounded_db(sqnr_db(signal, own + engines_own)) - _CHANCE_DB
        return min(kept - allowed, both, FLOAT_LIMIT_DB)


def farthest_first(gaps: Iterable[Gap]) -> tuple[Gap, ...]:
    """Gaps in order, the farthest from its limit first."""
    return tuple(sorted(gaps, key=lambda gap: gap.margin_db))


def allow_chance(gaps: Iterable[Gap], chance: Sequence[Gap]) -> tuple[Gap, ...]:
    """Gaps with a lower limit where chance alone takes the graph as far from itself.

    Args:
        gaps: of an engine.
        chance: of the graph with other roundings, the same outputs and batches.
    """
    moved = {(gap.output, gap.batch): gap.sqnr_db for gap in chance}
    allowed = [
        replace(
            gap,
            limit_db=min(gap.limit_db, moved.get((gap.output, gap.batch), math.inf) - _ALLOWED_DB),
        )
        for gap in gaps
    ]
    return farthest_first(allowed)


def _few(noise: float, fourth: float) -> bool:
    """Whether a few numbers hold the difference: its participation ratio is small."""
    return bool(math.isfinite(noise) and noise * noise < _FEW_NUMBERS * fourth)


def _noise(wanted: NDArray[Any], found: NDArray[Any], power: int = 2) -> float:
    """Energy of the difference; infinite where one is no number and the other is."""
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    known = np.isfinite(a)
    if not np.array_equal(known, np.isfinite(b)):
        return math.inf
    return float(((a[known] - b[known]) ** power).sum())


def _finite(values: NDArray[Any]) -> NDArray[np.float64]:
    found = values.astype(np.float64)
    return np.where(np.isfinite(found), found, 0.0)
