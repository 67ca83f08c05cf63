"""What TensorRT-RTX's builder makes of an INT8 graph: its kernels, without a GPU."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import engines
from engines.options import Target
from engines.tensorrt.layers import tensorrt_precisions
from engines.tensorrt.library import tensorrt, tensorrt_log
from engines.tensorrt.plan_log import is_arithmetic, logged_layers

__all__ = ["Plan", "compile_graph", "converts"]

TARGET: Target = "tensorrt-rtx"
# Generated code is named after its operations, four letters each; these only move numbers between
# types and places. Of the types alone: "MulMinMaxRounCast" quantizes, "CastMul" brings back.
_WORD = re.compile(r"[A-Z][a-z]+")
_CONVERTING = {"Cast", "Move", "Tran"}
_ONLY = _CONVERTING | {"Mul", "Min", "Max", "Roun", "Resh", "Slic", "Conc", "Bcas", "Copy", "Repl"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One plan.

    Attributes:
        kernels: that run, those that prepare constants left out.
        multiplying: convolutions, products, and whole attentions among them.
        int8: how many of those read INT8.
        int8_macs: multiply-accumulates of the layers that run INT8.
        conversions: kernels that compute nothing: they scale, round, cast and move.
        plan_bytes: size of the plan.
        seconds: that the builder took.
        names: of all kernels.
    """

    kernels: int
    multiplying: int
    int8: int
    int8_macs: int
    conversions: int
    plan_bytes: int
    seconds: float
    names: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For the stored results."""
        return asdict(self) | {"names": " ".join(self.names)}


def compile_graph(path: Path, capability: str) -> Plan:
    """Build for one compute capability, such as "8.9", and look at what came out.

    Raises:
        BuilderError: the builder refuses the graph.
    """
    options = engines.BuildOptions(target=TARGET, compute_capabilities=(capability,))
    with tempfile.TemporaryDirectory() as folder:
        manifest = engines.build(
            path, Path(folder) / "model.engine", options, passport=engines.Passport(), bar=False
        )
    (text,) = tensorrt_log(tensorrt(TARGET)).layers
    layers = list(logged_layers(text))
    products = [layer for layer in layers if is_arithmetic(layer)]
    covered = manifest.coverage.nodes if manifest.coverage is not None else ()
    return Plan(
        kernels=len(layers),
        multiplying=len(products),
        int8=sum(_runs_int8(layer) for layer in products),
        int8_macs=sum(node.macs for node in covered if node.precision == "int8"),
        conversions=sum(converts(layer) for layer in layers),
        plan_bytes=manifest.engine_bytes,
        seconds=round(manifest.build["seconds"], 1),
        names=tuple(layer["Name"] for layer in layers),
    )


def converts(layer: Mapping[str, Any]) -> bool:
    """Whether a kernel computes nothing: what it reads only changes its type or place.

    Adding a bias is no reason for a kernel of its own, so it counts, too. Two tensors that are
    multiplied are named alike ("MulMulMinMaxRounCast", a gate and a quantizer), so that reading
    several counts only where they are joined.
    """
    name = str(layer["Name"])
    if not name.startswith("__myl_"):
        return False
    words = set(_WORD.findall(name.removeprefix("__myl_").partition("_")[0]))
    if len(layer["Inputs"]) == 1:
        words -= {"Add"}
    elif "Conc" not in words:
        return False
    return bool(words & _CONVERTING) and words <= _ONLY


def _runs_int8(layer: Mapping[str, Any]) -> bool:
    return "int8" in tensorrt_precisions({"Layers": [layer]}).values()
