"""What engines for the CPU are held to: their own graphs, and NNCF's engines."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["LEAST_GAIN_DB", "MOST_LOST_DB", "WORST_RATIO", "decibels", "of_engine", "of_latency"]

MOST_LOST_DB = 1.0
"""By which an engine's SQNR may lie below that of its graph."""
LEAST_GAIN_DB = 3.0
"""By which an engine's SQNR lies above NNCF's."""
WORST_RATIO = 1.05
"""Of an engine's latency to NNCF's."""


def decibels(sqnr_db: float | None) -> str:
    """An SQNR in a table; None is no noise."""
    return "exact" if sqnr_db is None else f"{sqnr_db:.1f}"


def of_engine(
    name: str, graph_db: float, engine_db: float, peers: Mapping[str, float]
) -> list[str]:
    """One line a goal.

    Args:
        name: of the network.
        graph_db: SQNR of our graph as it is written.
        engine_db: of our engine.
        peers: NNCF's engines → their SQNR.
    """
    lost = graph_db - engine_db
    lines = [
        f"{name}: the engine is {lost:+.2f} dB below its graph, expected at most "
        f"{MOST_LOST_DB:g} dB: {_verdict(lost <= MOST_LOST_DB)}"
    ]
    for peer, peer_db in peers.items():
        gain = engine_db - peer_db
        lines.append(
            f"{name}: the engine is {gain:+.2f} dB over that of {peer}, expected at least "
            f"{LEAST_GAIN_DB:+g} dB: {_verdict(gain >= LEAST_GAIN_DB)}"
        )
    return lines


def of_latency(name: str, ratio: float) -> str:
    """One line: our engine's latency as a ratio to NNCF's."""
    return (
        f"{name}: {ratio:.3f} times NNCF's latency, expected at most {WORST_RATIO:g}: "
        f"{_verdict(ratio <= WORST_RATIO)}"
    )


def _verdict(kept: bool) -> str:
    return "kept" if kept else "MISSED"
