"""A peer's Q/DQ model against the model as it came, in a process of its own.

python -m benchmarks.zoo.judge NAME MODEL.onnx CANDIDATE.onnx RESULT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.zoo.measure import judged
from benchmarks.zoo.network import samples
from benchmarks.zoo.networks import NETWORKS


def main() -> int:
    """Judge, and write a JSON file."""
    name, model, candidate, output = sys.argv[1:]
    found = judged(Path(model), Path(candidate), samples(NETWORKS[name])[1])
    Path(output).write_text(json.dumps(found | {"outcome": "built"}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
