"""What the benchmark ran on and with, as text; ``unknown`` rather than a guess."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from artefacts.machine import usable_cores
from benchmarks.machine.nvml import Gpu, open_gpu
from benchmarks.machine.proc_files import read_number, read_text

__all__ = ["UNKNOWN", "capture_environment", "parse_nvpmodel"]

UNKNOWN = "unknown"
# CPU features that INT8 arithmetic needs to pay; Arm spells them differently.
INT8_FLAGS = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm", "sve2")
PACKAGES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "mlcommons_loadgen",
    "pycocotools",
)
CONTAINERS = {".dockerenv": "docker", "run/.containerenv": "podman"}

Run = Callable[[Sequence[str]], str | None]


def run_command(command: Sequence[str]) -> str | None:
    """Standard output of a small system command; None where it is missing or fails."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def capture_environment(
    root: Path = Path("/"), run: Run = run_command, gpu: Gpu | None = None
) -> dict[str, dict[str, str]]:
    """Section → key → value.

    Args:
        root: where ``proc``, ``sys`` and ``etc`` are; tests give a recorded tree.
        run: runs a system command; tests give recorded answers.
        gpu: the GPU; by default the first that NVML shows.
    """
    sections = {
        "cpu": _cpu(root),
        "memory": _memory(root),
        "gpu": _gpu(gpu or open_gpu()),
        "jetson": _jetson(root, run),
        "system": _system(root),
        "software": _software(run),
    }
    return {
        name: {key: value or UNKNOWN for key, value in facts.items()}
        for name, facts in sections.items()
        if facts
    }


def _cpu(root: Path) -> dict[str, str | None]:
    """Model, cores, clocks, governor and the instructions that INT8 needs."""
    info = read_text(root / "proc/cpuinfo") or ""
    entries = [line.partition(":") for line in info.splitlines()]
    values = {key.strip(): value.strip() for key, _, value in reversed(entries)}
    flags = (values.get("flags") or values.get("Features") or "").split()
    policy = root / "sys/devices/system/cpu/cpu0/cpufreq"
    return {
        "model": values.get("model name") or values.get("Model") or platform.processor() or None,
        "logical cores": str(os.cpu_count() or UNKNOWN),
        "usable cores": str(usable_cores()),
        "INT8 instructions": ", ".join(f for f in INT8_FLAGS if f in flags) or None,
        "governor": read_text(policy / "scaling_governor"),
        "clock": _scaled(policy / "scaling_cur_freq", 1e-3, "MHz"),
        "highest clock": _scaled(policy / "cpuinfo_max_freq", 1e-3, "MHz"),
        "turbo": _turbo(root),
        "load": (read_text(root / "proc/loadavg") or "").partition(" ")[0] or None,
    }


def _turbo(root: Path) -> str | None:
    """Whether the CPU may exceed its base clock."""
    no_turbo = read_number(root / "sys/devices/system/cpu/intel_pstate/no_turbo")
    boost = read_number(root / "sys/devices/system/cpu/cpufreq/boost")
    if no_turbo is not None:
        return "off" if no_turbo else "on"
    return None if boost is None else "on" if boost else "off"


def _memory(root: Path) -> dict[str, str | None]:
    """Total and available memory."""
    lines = (read_text(root / "proc/meminfo") or "").splitlines()
    values = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
    return {
        name: f"{int(values[key][0]) / 2**20:.1f} GiB" if values.get(key) else None
        for name, key in (("total", "MemTotal"), ("available", "MemAvailable"))
    }


def _gpu(gpu: Gpu | None) -> dict[str, str | None]:
    """What NVML tells; no section without a GPU."""
    if gpu is None:
        return {}
    numbers = {
        "clock": (gpu.clock_mhz(), "MHz"),
        "highest clock": (gpu.max_clock_mhz(), "MHz"),
        "power": (gpu.power_w(), "W"),
        "power limit": (gpu.power_limit_w(), "W"),
        "temperature": (gpu.temperature_c(), "°C"),
    }
    slowdowns = gpu.slowdowns()
    return {
        "name": gpu.name,
        "driver": gpu.driver(),
        **{k: None if v is None else f"{v:.0f} {unit}" for k, (v, unit) in numbers.items()},
        "slowed down by": None if slowdowns is None else ", ".join(slowdowns) or "nothing",
    }


def _jetson(root: Path, run: Run) -> dict[str, str | None]:
    """Board, L4T, power mode and clock lock; no section on anything else."""
    release = read_text(root / "etc/nv_tegra_release")
    model = read_text(root / "proc/device-tree/model")
    if release is None and "jetson" not in (model or "").lower():
        return {}
    return {
        "board": model,
        "L4T": (release or "").partition("\n")[0].removeprefix("# ") or None,
        "power mode": parse_nvpmodel(run(["nvpmodel", "-q"])),
        "GPU clock locked": _gpu_locked(root),
    }


def parse_nvpmodel(text: str | None) -> str | None:
    """E.g. ``MAXN_SUPER (2)``.

    Args:
        text: of ``nvpmodel -q``: a line ``NV Power Mode: MAXN_SUPER``, then a line with its number.
    """
    lines = [line.strip() for line in (text or "").splitlines()]
    for line, after in zip(lines, [*lines, ""][1:], strict=True):
        if line.startswith("NV Power Mode:"):
            mode = line.partition(":")[2].strip()
            return f"{mode} ({after})" if after.isdigit() else mode
    return None


def _gpu_locked(root: Path) -> str | None:
    """What ``jetson_clocks`` does to the GPU: its lowest clock is its highest."""
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if not any(word in folder.name for word in ("gpu", "gv11b", "gp10b", "gm20b", "ga10b")):
            continue
        low, high = read_number(folder / "min_freq"), read_number(folder / "max_freq")
        if low and high:
            state = "yes" if low == high else "no"
            return f"{state} ({low / 1e6:.0f}–{high / 1e6:.0f} MHz)"
    return None


def _system(root: Path) -> dict[str, str | None]:
    """Operating system, kernel, container."""
    release = read_text(root / "etc/os-release") or ""
    names = [line[12:].strip('"') for line in release.splitlines() if line[:12] == "PRETTY_NAME="]
    marks = [name for file, name in CONTAINERS.items() if (root / file).exists()]
    return {
        "system": names[0] if names else None,
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "container": marks[0] if marks else "none seen",
    }


def _software(run: Run) -> dict[str, str | None]:
    """Versions of Python, the packages and this project."""
    commit = run(["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"])
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        **{name: version or "not installed" for name, version in versions.items()},
        "git commit": commit,
    }


def _version(package: str) -> str | None:
    """Version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _scaled(path: Path, factor: float, unit: str) -> str | None:
    """A number in a file, in another unit."""
    value = read_number(path)
    return None if value is None else f"{value * factor:.0f} {unit}"
