"""Random networks on three kinds of CPU: does OpenVINO's engine compute the INT8 graph?

The kinds that this CPU is not are those that oneDNN is held to by ONEDNN_MAX_CPU_ISA. Each is a
process of its own, which a crash of the runtime ends:

    python -m tests.soak.engines SEED SECONDS
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

import engines
from artefacts.errors import BuilderError
from quantization.placement import place
from quantization.prepare.prepare import prepare
from quantization.write.insert import insert_qdq
from tests.networks.running import minmax_ranges, random_feeds, run, sqnr_db
from tests.soak.figures import Figure
from tests.soak.random_networks import random_network
from tests.soak.random_tokens import random_tokens

__all__ = ["compare_engines"]

KINDS = {"this CPU": {}, "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}
KINDS["AVX-512 without VNNI"] = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
SIZES = (3, 5, 2)  # of free axes, one request after the other
ENOUGH_DB, MARGIN_DB = 35.0, 1.0  # codes that differ at ties leave less than all of rounding does
ALARMED_S = 60.0  # beside the time that is asked for


def compare_engines(seconds: float, seed: int) -> Iterator[Figure]:
    """One figure for each kind of CPU; what is wrong names the seed of the network."""
    for kind, environment in KINDS.items():
        figure, share_s = Figure(attack=f"random networks, {kind}"), seconds / len(KINDS)
        end_s, first = time.monotonic() + share_s, seed
        while (left_s := end_s - time.monotonic()) > 0:
            done = subprocess.run(
                [sys.executable, "-m", "tests.soak.engines", str(first), str(left_s)],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                timeout=left_s + ALARMED_S,
                check=False,
            )
            lines = done.stdout.splitlines()
            for line in lines:
                figure.count(*([] if line.endswith(" right") else [line]))
            first += len(lines)
            if done.returncode:
                figure.count(f"network {first} ended the process with {done.returncode}")
                first += 1
        yield figure


def _main() -> None:
    logging.disable(logging.WARNING)
    seed, end_s = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end_s:
            sys.stdout.write(f"network {seed}: {_compared(seed, Path(folder))}\n")
            sys.stdout.flush()
            seed += 1


def _compared(seed: int, folder: Path) -> str:
    """How near the engine of a network is to its INT8 graph; what is refused is right as well."""
    try:
        model = prepare((random_network, random_tokens)[seed % 2](seed))
        portable = engines.cpu_isa() == "portable"
        placement = place(model, profile="cpu", portable=portable)
        feeds = random_feeds(model, np.random.default_rng(seed), dynamic=SIZES[0])
        int8 = insert_qdq(model, placement, minmax_ranges(model, placement.tensors, feeds))
        onnx.save(int8, folder / "m.onnx")
        options = engines.BuildOptions(target="cpu", precision="int8", threads=1 + seed // 2 % 2)
        engines.build(folder / "m.onnx", folder / "m.engine", options)
    except BuilderError as err:
        return f"{type(err).__name__}, right"
    with engines.load(folder / "m.engine") as engine:
        for size in SIZES:  # a larger one is other memory, where axes are free
            feeds = random_feeds(model, np.random.default_rng(seed + size), dynamic=size)
            wanted, plain, found = (
                run(int8, feeds, optimize=False),
                run(model, feeds),
                engine(feeds),
            )
            for name, values in wanted.items():
                level, own = sqnr_db(values, found[name]), sqnr_db(plain[name], values)
                if level < min(ENOUGH_DB, own - MARGIN_DB):
                    return f"{level:.1f} dB of {size}, the graph itself {own:.1f}"
    return "right"


if __name__ == "__main__":
    _main()
