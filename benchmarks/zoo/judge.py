"""A peer's Q/DQ model against the model as it came, in a process of its own.

python -m benchmarks.zoo.judge NAME MODEL.onnx CANDIDATE.onnx RESULT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx

from benchmarks.zoo.measure import judged
from benchmarks.zoo.network import Sample, samples
from benchmarks.zoo.networks import NETWORKS
from graphs.macs import work
from graphs.operators import WEIGHTED_OPS
from graphs.qdq import is_quantized
from graphs.view import GraphView

__all__ = ["int8_share"]


def int8_share(model: onnx.ModelProto, sample: Sample) -> float:
    """Share of the multiply-accumulates of layers that read codes on both sides, 0 to 1.

    Args:
        model: with Q/DQ pairs.
        sample: whose sizes are counted by.
    """
    view = GraphView(model, {name: array.shape for name, array in sample.items()})
    found = {node.name: work(view, node) for node in view.nodes}
    total = sum(found.values())
    int8 = sum(
        found[node.name]
        for node in view.nodes
        if node.op_type in WEIGHTED_OPS and all(is_quantized(view, n) for n in node.inputs[:2])
    )
    return int8 / total if total else 0.0


def main() -> int:
    """Judge, and write a JSON file."""
    name, model, candidate, output = sys.argv[1:]
    held = samples(NETWORKS[name])[1]
    found = judged(Path(model), Path(candidate), held)
    found["int8_share"] = round(int8_share(onnx.load(candidate), held[0]), 4)
    Path(output).write_text(json.dumps(found | {"outcome": "built"}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
