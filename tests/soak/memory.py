"""How much memory an engine keeps after many shapes, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.soak.commands import COMMANDS, ROOT, run

__all__ = ["memory_by_shapes"]

PROGRAM = """
import sys
import numpy as np
import engines

def used():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

with engines.load(sys.argv[1], threads=1) as engine:
    def infer(size):
        engine({"image": np.zeros((size, 1, 32, 32), np.float32)})
    infer(int(sys.argv[2]))
    before = used()
    for size in range(1, int(sys.argv[2]) + 1):
        infer(size)
    print(f"{used() - before:.0f}")
"""


def memory_by_shapes(sizes: int) -> float:
    """MB more after every batch size up to ``sizes`` than after the largest alone."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        code, said = run(COMMANDS["build"].command(out, out), out)
        if code:
            raise RuntimeError(said)
        words = [sys.executable, "-c", PROGRAM, str(out / "m.engine"), str(sizes)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        return float(done.stdout)
