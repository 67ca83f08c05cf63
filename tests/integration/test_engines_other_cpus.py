"""Engines compute their graph on x86 CPUs that this one is not.

Two ways lead there: OpenVINO's oneDNN uses no newer instructions than ONEDNN_MAX_CPU_ISA says, at
full speed and on any x86; and ``qemu-x86_64 -cpu Haswell`` is such a CPU.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.integration.test_engines_every_cpu import build_int8
from tests.networks import Builder
from tests.networks.running import random_feeds

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

ROOT = Path(__file__).parents[2]
QEMU = shutil.which("qemu-x86_64")

WITHOUT_VNNI = """
import sys
from pathlib import Path
import numpy as np
import engines
from quantization.measure.execution import load_int8
assert engines.cpu_isa() == "portable", engines.cpu_isa()
folder = Path(sys.argv[1])
options = engines.BuildOptions(target="cpu", precision="int8", threads=1)
engines.build(folder / "m.onnx", folder / "other.engine", options)
with np.load(folder / "feeds.npz") as data:
    feeds = dict(data)
wanted = load_int8(folder / "m.onnx")(feeds)
found = engines.load(folder / "other.engine")(feeds)
for name, values in wanted.items():
    noise = float(((values - found[name]).astype(np.float64) ** 2).sum())
    print(10 * np.log10(float((values.astype(np.float64) ** 2).sum()) / max(noise, 1e-30)))
"""


def run_without_vnni(
    folder: Path, rng: np.random.Generator, *, before: tuple[str, ...] = (), **environment: str
) -> None:
    """Build a small network here, and again where ``environment`` says; graph and engine agree."""
    net = Builder(11)
    x = net.relu(net.conv(net.input("x", ("N", 8, 6, 6)), 16))
    y = net.conv(net.conv(x, 16, groups=16), 16, 1)
    flat = net.op("Flatten", net.op("GlobalAveragePool", net.op("Add", y, x)))
    model = net.build("net", net.op("MatMul", flat, net.weight((16, 8), 16)))
    build_int8(model, folder / "m.engine", rng)
    np.savez(folder / "feeds.npz", **random_feeds(model, rng, dynamic=2))
    done = subprocess.run(
        [*before, sys.executable, "-c", WITHOUT_VNNI, str(folder)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split()[-1]) > 30


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="names of x86 instructions"
)
@pytest.mark.parametrize("isa", ["SSE41", "AVX2", "AVX512_CORE"])
def test_a_network_without_the_instructions(
    isa: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    run_without_vnni(tmp_path, rng, ONEDNN_MAX_CPU_ISA=isa)


@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 is not installed (Debian: qemu-user)")
@pytest.mark.parametrize("cpu", ["Haswell", "Nehalem"])
def test_a_network_on_cpus_without_vnni(cpu: str, tmp_path: Path, rng: np.random.Generator) -> None:
    # Of an emulated CPU OpenBLAS takes some hosts' kernels, which it cannot run.
    run_without_vnni(tmp_path, rng, before=(str(QEMU), "-cpu", cpu), OPENBLAS_CORETYPE=cpu)
