"""A recorder beside an engine for 100,000 requests: what it keeps in memory and on disk."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.soak.commands import COMMANDS, ROOT, run
from tests.soak.figures import Figure

__all__ = ["judged", "record_under_load"]

REQUESTS = 100_000
LIMIT, LIMIT_BYTES = 500, 1_000_000
MORE_MB = 20.0  # what any service's memory moves by, beside the samples that wait

PROGRAM = """
import json, sys, time
from pathlib import Path
import numpy as np
import engines

engine, folder = sys.argv[1], Path(sys.argv[2])
requests, limit, limit_bytes = map(int, sys.argv[3:])

def used_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

pictures = np.random.default_rng(0).random((64, 1, 1, 32, 32), np.float32)
recorder = engines.Recorder(folder, share=1.0, limit=limit, limit_bytes=limit_bytes)
found = {"memory_mb": [], "disk_bytes": [], "files": []}
with recorder, engines.load(engine, threads=1, record=recorder, drift=True) as loaded:
    for number in range(requests):
        if number % (requests // 20) == requests // 50:
            on_disk = [path.stat().st_size for path in folder.glob("*.npz")]
            found["memory_mb"].append(used_mb())
            found["disk_bytes"].append(sum(on_disk))
            found["files"].append(len(on_disk))
        loaded({"image": pictures[number % 64]})
done = recorder.statistics()
found["statistics"] = {name: getattr(done, name) for name in ("seen", "kept", "dropped", "failed")}
print(json.dumps(found))
"""


def record_under_load(requests: int = REQUESTS) -> Figure:
    """Every request is drawn; the limits hold at every look, and memory does not grow."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        code, said = run(COMMANDS["build"].command(out, out), out)
        if code:
            raise RuntimeError(said)
        limits = [str(requests), str(LIMIT), str(LIMIT_BYTES)]
        words = [sys.executable, "-c", PROGRAM, str(out / "m.engine"), str(out / "s"), *limits]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return judged(json.loads(done.stdout), requests)


def judged(found: dict[str, Any], requests: int) -> Figure:
    """One count for each look, and one for the requests that were heard of."""
    memory_mb, sizes, files = (found[name] for name in ("memory_mb", "disk_bytes", "files"))
    statistics = found["statistics"]
    figure = Figure(attack="looks at a recorder")
    for used_mb, size, count in zip(memory_mb, sizes, files, strict=True):
        wrong = [] if size <= LIMIT_BYTES else [f"{size} bytes on disk"]
        wrong += [] if count <= LIMIT else [f"{count} samples"]
        grown = used_mb - memory_mb[0]
        figure.count(*wrong, *([] if grown < MORE_MB else [f"{grown:.0f} MB more memory"]))
    lost = requests - statistics["seen"]
    figure.count(*([f"{lost} requests not seen"] if lost else []))
    figure.attack += (
        f" ({requests} requests, {max(memory_mb) - memory_mb[0]:.1f} MB more memory, at most "
        f"{max(files)} samples and {max(sizes)} bytes, {statistics['dropped']} dropped)"
    )
    return figure
