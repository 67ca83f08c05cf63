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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.integration.test_engines_every_cpu import KINDS, build_int8, layer
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
from tests.networks.running import sqnr_db
assert engines.cpu_isa() == "portable", engines.cpu_isa()
options = engines.BuildOptions(target="cpu", precision="int8", threads=2)
for model in sorted(Path(sys.argv[1]).glob("*.onnx")):
    engine = model.with_suffix(".other.engine")
    engines.build(model, engine, options)
    with np.load(model.with_suffix(".npz")) as data:
        feeds = dict(data)
    wanted, found = load_int8(model)(feeds), engines.load(engine)(feeds)
    for name, values in wanted.items():
        print(model.stem, sqnr_db(values, found[name]))
"""
X86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="instructions of x86 are asked for"
)


def small_network() -> onnx.ModelProto:
    net = Builder(11)
    x = net.relu(net.conv(net.input("x", ("N", 8, 6, 6)), 16))
    y = net.conv(net.conv(x, 16, groups=16), 16, 1)
    flat = net.op("Flatten", net.op("GlobalAveragePool", net.op("Add", y, x)))
    return net.build("net", net.op("MatMul", flat, net.weight((16, 8), 16)))


def shortcut() -> onnx.ModelProto:
    """RegNet's: OpenVINO's threads write over each other's part of the batch with AVX2."""
    net = Builder(12)
    x = net.input("x", (8, 56, 32, 32))
    y = net.op("Conv", x, net.weight((8, 56, 1, 1), 56), net.bias(8), strides=[2, 2])
    return net.build("shortcut", y)


def add(folder: Path, name: str, model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Quantize a model, and keep inputs for it, some of which reach beyond its ranges."""
    build_int8(model, folder / f"{name}.engine", rng)
    feeds = random_feeds(model, rng, dynamic=2)
    for array in feeds.values():
        array[0] = 3 * np.abs(array[0])
    np.savez(folder / f"{name}.npz", **feeds)


def decibels_without_vnni(
    folder: Path, before: Sequence[str] = (), **more: str
) -> dict[str, float]:
    """How close engines are to their graphs, built where ``before`` and the environment lead."""
    done = subprocess.run(
        [*before, sys.executable, "-c", WITHOUT_VNNI, str(folder)],
        cwd=ROOT,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [line.split() for line in done.stdout.splitlines()]
    return {name: float(level) for name, level in found}


@X86
@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE"])
def test_every_kind_of_layer(isa: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """AVX-512 without VNNI is Skylake; weights are large and of one sign."""
    for kind in KINDS:
        unsigned = kind == "transposed"  # it stays in float otherwise
        model = layer(kind, unsigned=unsigned, seed=int(rng.integers(1 << 30)))
        add(tmp_path, kind, model, rng)
    add(tmp_path, "shortcut", shortcut(), rng)
    found = decibels_without_vnni(tmp_path, ONEDNN_MAX_CPU_ISA=isa)
    assert sorted(found) == sorted([*KINDS, "shortcut"])
    assert min(found.values()) > 60, found


@X86
@pytest.mark.parametrize("isa", ["SSE41", "AVX2", "AVX512_CORE"])
def test_a_network_without_the_instructions(
    isa: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    add(tmp_path, "net", small_network(), rng)
    assert decibels_without_vnni(tmp_path, ONEDNN_MAX_CPU_ISA=isa)["net"] > 30


@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 is not installed (Debian: qemu-user)")
@pytest.mark.parametrize("cpu", ["Haswell", "Nehalem"])
def test_a_network_on_cpus_without_vnni(cpu: str, tmp_path: Path, rng: np.random.Generator) -> None:
    add(tmp_path, "net", small_network(), rng)
    before = [str(QEMU), "-cpu", cpu]
    # Of an emulated CPU OpenBLAS takes some hosts' kernels, which it cannot run.
    assert decibels_without_vnni(tmp_path, before, OPENBLAS_CORETYPE=cpu)["net"] > 30
