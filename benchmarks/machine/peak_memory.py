"""Memory and cold start: measured in a fresh process, where nothing else has run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine.proc_files import read_text

__all__ = ["MemoryResult", "peak_bytes", "probe_process"]

TIMEOUT_S = 600.0
PROBE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from benchmarks.__main__ import main
sys.exit(main(["probe", *sys.argv[2:]]))
"""


@dataclass(frozen=True, kw_only=True)
class MemoryResult:
    """What loading one engine costs.

    Attributes:
        load_ms: from the call of the loader to a ready engine, the runtime's library included.
        first_ms: the first inference.
        host_peak_bytes: largest resident memory of the process.
        host_growth_bytes: of it, what came with the library, the engine and its first inference.
        device_bytes: GPU memory that came with it; None without a GPU that tells.
    """

    load_ms: float
    first_ms: float
    host_peak_bytes: int
    host_growth_bytes: int
    device_bytes: int | None = None


def peak_bytes(root: Path = Path("/"), process: str = "self") -> int:
    """Largest resident memory of a process so far; 0 where Linux does not tell.

    Args:
        root: where ``proc`` is.
        process: its number, or this one.
    """
    for line in (read_text(root / "proc" / process / "status") or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def probe_process(arguments: Sequence[str]) -> MemoryResult | None:
    """Run ``python -m benchmarks probe …`` and read its answer; None where it fails.

    With this process's module path: ``-m`` would take an ``engines.py`` of the user's folder first.

    Args:
        arguments: of the probe, e.g. the engine's path.
    """
    command = [sys.executable, "-c", PROBE, json.dumps(sys.path), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
        return MemoryResult(**json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, IndexError):
        return None
