"""What the last step would refuse, said in the first."""

from __future__ import annotations

from pathlib import Path

import onnx

import engines
from artefacts.errors import ModelError
from pipeline.flags import Job
from quantization.lint.lint import RULES, lint

__all__ = ["refuse_unbuildable"]


def refuse_unbuildable(job: Job, target: str, prepared: onnx.ModelProto, source: Path) -> None:
    """Refuse a model that the target's library does not read, or has no kernels for.

    A model that is built elsewhere is not held to the library of this machine.

    Args:
        job: the flags.
        target: that is built for.
        prepared: the graph.
        source: its file.

    Raises:
        ModelError: which nodes, and what to do.
        MissingLibraryError: the target's library is not installed.
    """
    if job.stop_after is not None:
        return
    engines.check_readable(target, source)
    # All other rules are the parser's own, which has just been asked.
    own = {name for name, rule in RULES.items() if rule.target == target}
    lacking = [finding for finding in lint(prepared, target) if finding.rule in own]
    if lacking:
        first = lacking[0]
        raise ModelError(
            f"node {first.node} ({first.found}) of {job.onnx} cannot be built for {target}: "
            f"{first.why[0].lower()}{first.why[1:-1]}, expected operators that it has; "
            f"{first.mend[0].lower()}{first.mend[1:-1]}"
        )
