"""Outputs of which INT8 leaves little: an engine is not handed over without a word on them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.accuracy import AccuracyResult
from graphs.comparable import chosen_places
from graphs.operators import ORDERING_OPS, SHAPE_MAKING_OPS
from graphs.view import GraphView
from graphs.walk import reads, with_bodies

__all__ = ["drowned_outputs", "reordered_outputs"]

_LEAST_DB = 10.0
_REASSURING_DB = 20.0
_MOSTLY_SAME = 0.9  # of the answers


def drowned_outputs(result: AccuracyResult | None, view: GraphView, engine: Path) -> list[str]:
    """A warning where an output is mostly made of INT8's errors, and nothing says it is of use.

    Labels, or answers that stay the same, may say so. Measured (docs/benchmarking.md): detectors of
    4 to 7 dB lose 20 to 29 points of mAP, one of 10.6 dB loses 0.3.

    Args:
        result: of the engine, or of its graph where it was not run; None for neither.
        view: of the float network.
        engine: the file.
    """
    if result is None or result.agreement is None or result.metric:
        return []
    same = result.agreement.top1
    if same is not None and same >= _MOSTLY_SAME:
        return []
    low = _levels(result, below_db=_LEAST_DB)
    levels = {name: level for name, level in low.items() if not _is_chosen(view, name)}
    if not levels:
        return []
    worst = min(levels, key=lambda name: levels[name])
    return [
        f"output {worst} keeps {levels[worst]:.1f} dB of FP32 in INT8, expected {_LEAST_DB:.0f} dB "
        "or more for it to be of use; give --min-sqnr 15, which leaves layers in float until it is "
        f"kept, or see with `int8 sensitivity {engine} --data SAMPLES` where the noise is born"
    ]


def reordered_outputs(result: AccuracyResult | None, view: GraphView) -> list[str]:
    """What a low SQNR says of outputs that are picked in an order of values: little.

    Args:
        result: as :func:`drowned_outputs` has it.
        view: of the float network.
    """
    if result is None or result.metric:
        return []
    placed = chosen_places(view)
    names = [name for name in _levels(result, below_db=_REASSURING_DB) if name in placed]
    if not names:
        return []
    return [
        f"  {', '.join(names)}: which values are largest decides what stands where, so SQNR says "
        "little of it; the improvement went by what is picked from. Give --eval-data and --task"
    ]


def _levels(result: AccuracyResult, *, below_db: float) -> dict[str, float]:
    """Outputs with less."""
    outputs = {} if result.agreement is None else result.agreement.outputs
    return {
        name: one.sqnr_db
        for name, one in outputs.items()
        if one.sqnr_db is not None and one.sqnr_db < below_db
    }


def _is_chosen(view: GraphView, output: str) -> bool:
    """Whether what comes before an output puts values in order, or chooses among them.

    One place in an order that changes moves all that follow: SQNR says nothing.
    """
    pending, seen = [output], {output}
    while pending:
        node = view.producer(pending.pop())
        if node is None:
            continue
        operators = {each.op_type for each in with_bodies(node.proto)}
        if not operators.isdisjoint(ORDERING_OPS | SHAPE_MAKING_OPS):
            return True
        new = set(reads(node.proto)) - seen
        seen |= new
        pending += new
    return False
