"""What ends a run with exit code 1 when everything is written."""

from __future__ import annotations

from pathlib import Path

from artefacts.errors import GateMissedError
from pipeline.engine_check import EngineCheck
from pipeline.judge import Verdict
from pipeline.promise import Promise

__all__ = ["refuse_gap", "refuse_if_missed"]

NOT_GENERAL = "it is kept on the samples that chose the model and not on those that test it"


def refuse_gap(engine: Path, check: EngineCheck, *, allowed: bool) -> None:
    """End with exit code 1 where the engine computes something else than its graph.

    Raises:
        GateMissedError: how far they are apart, from which layer on, and why.
    """
    if check.explained or allowed:
        return
    raise GateMissedError(
        f"{check}; do not ship {engine} before you know why, or accept it with --allow-runtime-gap"
    )


def refuse_if_missed(
    promise: Promise | None, made: Path, obstacle: str, verdict: Verdict | None, gap: str = ""
) -> None:
    """End with exit code 1 where the promise is not kept; the files stay.

    Args:
        promise: that was given, if any.
        made: the engine, or the model for one.
        obstacle: why no candidate keeps the promise; empty where one does.
        verdict: the measured result.
        gap: how the engine differs from its graph, where rounding does not explain it.

    Raises:
        GateMissedError: what was found, and what stands in the way.
    """
    if verdict is None or (verdict.kept and not obstacle):
        return
    # The search's reason first: what cannot be kept at all is no matter of samples or runtime.
    more = f"{verdict.chance}: give more" if verdict.chance else "give more samples"
    reason = obstacle or gap or f"{NOT_GENERAL}; {more}, or promise less"
    where = ", so it is kept there and missed on the samples that choose" if verdict.kept else ""
    raise GateMissedError(
        f"{promise} is missed: the best found, {made}, has {verdict}{where}; {reason}"
    )
