"""``int8 doctor``: what this machine is, which targets work, what INT8 brings, what is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from artefacts.arguments import ArgumentParser
from artefacts.colour import painted
from artefacts.command import run_command
from artefacts.errors import BuilderError
from benchmarks.machine.facts import UNKNOWN, capture_environment
from engines import RUNTIMES, cpu_isa, has_module, resolve_target
from engines.environment import gpu_facts, has_gpu
from int8.dla import dla_cores

__all__ = ["EXTRAS", "diagnose", "main", "parser"]

# Module that an extra brings → the extra, and what it is for.
EXTRAS = {
    "openvino": ("cpu", "engines for CPUs"),
    "tensorrt": ("tensorrt", "engines for NVIDIA GPUs and Jetson"),
    "pycuda": ("tensorrt", "running engines on NVIDIA GPUs"),
    "polygraphy": ("tensorrt", "looking into plans"),
    "tensorrt_rtx": ("rtx", "engines for RTX GPUs, built anywhere"),
    "matplotlib": ("report", "the HTML report"),
    "mlperf_loadgen": ("bench", "MLPerf's load scenarios"),
    "pycocotools": ("bench", "average precision of detectors"),
    "pynvml": ("bench", "clocks and power of NVIDIA GPUs"),
    "model_signing": ("signing", "signatures of engines"),
    "ray": ("ray", "calibration on several machines"),
    "fastapi": ("serve", "the HTTP service"),
    "torchao": ("qat", "quantization-aware training"),
}
ARITHMETIC = {
    "vnni": "exact (VNNI or its like), as tried",
    "portable": "saturate in pairs (no VNNI), as tried",
}
GAIN_OF_CPU = {
    "vnni": "four INT8 products where FP32 has one: faster wherever layers compute, and 4× smaller "
    "weights",
    "portable": "no VNNI: 4× smaller weights, less speed than with it; engines are bounded to be "
    "right (docs/deployment.md)",
}
TENSOR_CORES, PRODUCTS_OF_FOUR = (7, 2), (6, 1)
TITLES = {
    "cpu": "CPU",
    "memory": "memory",
    "gpu": "GPU",
    "jetson": "Jetson",
    "software": "software",
}
TOLD = {
    "cpu": ("model", "usable cores", "INT8 instructions"),
    "memory": ("total", "available"),
    "gpu": ("driver",),
    "software": ("python", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"),
}


def main(argv: Sequence[str] | None = None, prog: str = "int8 doctor") -> int:
    """Print the diagnosis; 0 where a target works here, 2 where none does."""
    as_json = parser(prog).parse_args(argv).json
    return run_command(lambda: _tell(as_json=as_json), debug=False)


def _tell(*, as_json: bool) -> int:
    found = diagnose()
    print(json.dumps(found, indent=2) if as_json else _text(found))
    return 0 if any(entry["works"] for entry in found["targets"].values()) else 2


def parser(prog: str) -> ArgumentParser:
    """The argument parser."""
    root = ArgumentParser(prog=prog, description=__doc__)
    root.add_argument("--json", action="store_true", help="one object on standard output")
    return root


def diagnose() -> dict[str, Any]:
    """The machine, the targets and the extras, as plain values."""
    machine = _machine()
    return {
        "machine": machine,
        "targets": {name: _target(name) for name in RUNTIMES},
        "auto": resolve_target("auto"),
        "missing": {
            module: f"pip install '.[{extra}]' for {purpose}"
            for module, (extra, purpose) in EXTRAS.items()
            if not has_module(module)
        },
    }


def _machine() -> dict[str, dict[str, str]]:
    """Facts by section; the GPU's from the driver, which a Jetson has and NVML may not."""
    facts = capture_environment()
    told = {
        section: {key: facts[section][key] for key in keys if key in facts.get(section, {})}
        for section, keys in TOLD.items()
    }
    if has_module("openvino"):
        told["cpu"]["INT8 sums"] = ARITHMETIC[cpu_isa()]
    gpu = (gpu_facts() if has_gpu() else None) or {}
    told["gpu"] = {**gpu, **told["gpu"]} or {"NVIDIA": "none found"}
    if "jetson" in facts:
        told["jetson"] = {**facts["jetson"], "DLA cores": dla_cores() or UNKNOWN}
    return told


def _target(name: str) -> dict[str, Any]:
    """Whether a target builds and runs here, what INT8 brings, or what is in the way."""
    runtime = RUNTIMES[name]
    try:
        runtime.ready()
    except BuilderError as err:
        return {"works": False, "runs": False, "gain": "", "obstacle": str(err)}
    if runtime.resolve_isa is not None:
        return {"works": True, "runs": True, "gain": GAIN_OF_CPU[cpu_isa()], "obstacle": ""}
    if not has_gpu():
        obstacle = "builds here; no NVIDIA GPU to run it on"
        return {"works": True, "runs": False, "gain": "", "obstacle": obstacle}
    return {"works": True, "runs": True, "gain": gain_of_gpu(gpu_facts() or {}), "obstacle": ""}


def gain_of_gpu(gpu: dict[str, str]) -> str:
    """What INT8 is on a GPU, by its compute capability."""
    major, _, minor = gpu.get("compute_capability", "").partition(".")
    if not (major.isdigit() and minor.isdigit()):
        return "unknown: the driver does not tell the compute capability"
    if (int(major), int(minor)) >= TENSOR_CORES:
        return "INT8 tensor cores: up to twice the rate of FP16, and half its memory traffic"
    if (int(major), int(minor)) >= PRODUCTS_OF_FOUR:
        return "no INT8 tensor cores, products of four (DP4A): faster than FP32; measure FP16 too"
    return "no INT8 arithmetic: smaller weights only"


def _text(found: dict[str, Any]) -> str:
    """For a person."""
    lines = [_title("this machine")]
    for section, facts in found["machine"].items():
        shown = ", ".join(f"{key} {value}" for key, value in facts.items())
        lines.append(f"  {TITLES[section]:<13} {shown}")
    lines += ["", _title("targets")]
    for name, entry in found["targets"].items():
        state = "works" if entry["works"] else "does not work here"
        chosen = ", chosen by auto" if name == found["auto"] and entry["works"] else ""
        lines.append(f"  {name:<13} {state}{chosen}")
        lines += [f"  {'':<13} {entry[key]}" for key in ("gain", "obstacle") if entry[key]]
    lines += ["", _title("not installed")]
    lines += [f"  {module:<15} {remedy}" for module, remedy in found["missing"].items()]
    lines += ["", "How much faster? int8 build, then int8 bench FP32.engine INT8.engine --data …"]
    return "\n".join(lines)


def _title(text: str) -> str:
    return painted(text, "bold", sys.stdout)
