"""One network on one target, in a process of its own: built as a user would, then looked at.

    python -m benchmarks.zoo.measure NAME TARGET MODEL.onnx RESULT.json

What it measures itself is beside what the build says: outputs of the engine and of the graph that
it was built from, on samples that calibration has not seen, against onnxruntime on the model as it
came.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import quantization
from artefacts.decibels import bounded_db
from artefacts.errors import BuilderError, GateMissedError
from benchmarks.accuracy.agreement import AgreementScorer
from benchmarks.zoo.network import Network, Sample, samples
from build_engine import Result, build
from engines import Manifest, read_manifest
from quantization.measure.execution import load_int8, load_onnxruntime

__all__ = ["judged", "likeness", "measured"]

Call = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def measured(network: Network, target: str, model: Path) -> dict[str, Any]:
    """Everything that the table says of a network on a target, and more.

    Args:
        network: as the table of the zoo has it.
        target: to build for.
        model: the network's file.
    """
    learned, held = samples(network)
    engine = Path(f"{network.name}.{target}.engine")
    start, busy = time.monotonic(), time.process_time()
    try:
        result = build(model, engine, target=target, calib_data=learned, **network.options)
    except GateMissedError as err:
        found: dict[str, Any] = {"outcome": "differs", "reason": str(err)}
    except BuilderError as err:
        found = {"outcome": "refused", "reason": str(err), "error": type(err).__name__}
    else:
        found = {"outcome": "built", "reason": ""}
    found["seconds"] = round(time.monotonic() - start, 1)
    found["cpu_seconds"] = round(time.process_time() - busy, 1)
    if found["outcome"] == "refused":
        return found | {"lint": fatal_rules(model, target)}
    manifest = read_manifest(engine) if found["outcome"] == "differs" else _manifest(result)
    return found | _figures(manifest) | _own_figures(model, engine, manifest, held)


def _manifest(result: Result) -> Manifest:
    if result.manifest is None:
        raise ValueError("the build ended without an engine, expected one")
    return result.manifest


def _figures(manifest: Manifest) -> dict[str, Any]:
    """What the build itself says."""
    placement, coverage = manifest.passport.placement, manifest.coverage
    runtime = manifest.measured.get("runtime", {})
    worst = min(runtime.get("outputs") or (), key=_margin, default=None)
    return {
        "said_share": None if placement is None else round(placement.int8_mac_share, 4),
        "run_share": None if coverage is None else round(coverage.int8_mac_share, 4),
        "layers_not_run": [
            f"{node.name} ({node.op_type}, {node.precision})"
            for node in (coverage.broken_promises if coverage else ())
        ][:20],
        "engine_is_graph": runtime.get("explained_by_rounding"),
        "engine_to_graph_db": None if worst is None else round(worst["sqnr_db"], 1),
        "engine_to_graph_limit_db": None if worst is None else round(worst["limit_db"], 1),
        "unmeasured": runtime.get("unmeasured", ""),
        "build_says_db": {
            name: round(figures["sqnr_db"], 1)
            for name, figures in manifest.measured.get("accuracy", {}).items()
            if figures.get("sqnr_db") is not None
        },
    }


def _margin(output: Mapping[str, float]) -> float:
    return output["sqnr_db"] - output["limit_db"]


def _own_figures(
    model: Path, engine: Path, manifest: Manifest, held: Sequence[Sample]
) -> dict[str, Any]:
    """The same by other means: the model as it came, samples as they are, one at a time."""
    source = engine.parent / manifest.onnx["name"]
    found: dict[str, Any] = {
        "lint": fatal_rules(model, manifest.target),
        "lint_built": fatal_rules(source, manifest.target),
        "graph": judged(model, source, held),
    }
    if manifest.target == "cpu":
        import engines

        with engines.load(engine) as loaded:
            found["engine"] = likeness(load_onnxruntime(model), loaded, held)
    return found


def judged(model: Path, candidate: Path, held: Sequence[Sample]) -> dict[str, Any]:
    """A Q/DQ model as it is written, against the model it was made from."""
    return likeness(load_onnxruntime(model), load_int8(candidate), held)


def likeness(exact: Call, candidate: Call, held: Sequence[Sample]) -> dict[str, Any]:
    """SQNR of the output that suffers most, over all samples; or the error of a run.

    Outputs whose shape depends on the data, and integers beside floats, are not compared.
    """
    scorer = AgreementScorer("fp32")
    try:
        for sample in held:
            scorer.add(exact(sample), candidate(sample))
    except BuilderError as err:
        return {"error": str(err)}
    agreement = scorer.result()
    levels = {
        name: round(bounded_db(math.inf if one.sqnr_db is None else one.sqnr_db), 1)
        for name, one in agreement.outputs.items()
    }
    return {
        "sqnr_db": min(levels.values(), default=None),
        "outputs": levels,
        "same": agreement.top1,
    }


def fatal_rules(path: Path, target: str) -> list[str]:
    """Rules that the linter calls fatal for a model, with what it found first.

    The linter knows TensorRT; of the cpu target's models it is asked nothing.
    """
    if target == "cpu":
        return []
    found: dict[str, str] = {}
    for finding in quantization.lint(quantization.load_model(path), target):
        if finding.severity == "fatal":
            found.setdefault(finding.rule, f"{finding.rule}: {finding.node} {finding.found}"[:200])
    return list(found.values())


def main() -> int:
    """Measure, and write a JSON file; a stack trace is a result, too, and the parent's to keep."""
    from benchmarks.zoo.networks import NETWORKS

    name, target, model, output = sys.argv[1:]
    found = measured(NETWORKS[name], target, Path(model))
    Path(output).write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
