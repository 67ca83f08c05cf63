"""The rules as a table for people, read from the rules themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from quantization.placement.profiles import PORTABLE, PROFILES

__all__ = ["SOURCES", "rule_table"]

_NVIDIA = "https://docs.nvidia.com/deeplearning/tensorrt"
_MODELOPT = "https://github.com/NVIDIA/Model-Optimizer"
SOURCES: dict[str, str] = {
    "explicit": f"{_NVIDIA}/latest/inference-library/quantized-types-explicit-quantization.html",
    "implicit": f"{_NVIDIA}/10.11.0/inference-library/work-quantized-types.html",
    "attention": f"{_NVIDIA}/latest/inference-library/transformers-fused-attention.html",
    "dla": f"{_NVIDIA}/latest/inference-library/dla-layer-restrictions.html",
    "modelopt": f"{_MODELOPT}/tree/main/modelopt/onnx/quantization",
    "modelopt#80": f"{_MODELOPT}/issues/80",
    "nncf": "https://github.com/openvinotoolkit/nncf",
    "onnx": "https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html",
}
"""What the keys after ``Source:`` in a rule's docstring stand for."""


def rule_table() -> str:
    """A Markdown table of all rules: what, why, where from, in which profiles."""
    rules: dict[Callable[..., Any], list[str]] = {}
    for profile, parts in PROFILES.items():
        steps: list[Callable[..., Any]] = [*parts.keep, *parts.place]
        for rule in steps:
            rules.setdefault(rule, []).append(profile)
        if profile == "cpu":
            rules |= {rule: ["cpu (`portable`)"] for rule in PORTABLE}
    lines = ["| rule | what | why | source | profiles |", "|---|---|---|---|---|"]
    for rule, profiles in rules.items():
        what, why, source = _parts(rule)
        lines.append(f"| `{rule.__name__}` | {what} | {why} | {source} | {', '.join(profiles)} |")
    links = [f"[{key}]: {url}" for key, url in SOURCES.items()]
    return "\n".join([*lines, "", *links, ""])


def _parts(rule: Callable[..., Any]) -> tuple[str, str, str]:
    """What, why and source, from a docstring with ``Why:`` and ``Source:`` paragraphs."""
    text = inspect.getdoc(rule) or ""
    found = re.fullmatch(r"(.+?)\s+Why: (.+?)\s+Source: (.+?)", text, re.DOTALL)
    if found is None:
        raise ValueError(f"rule {rule.__name__} has no Why: and Source: in its docstring")
    what, why, source = (" ".join(part.split()).replace("|", "\\|") for part in found.groups())
    what, why = (part.replace("``", "`") for part in (what, why))
    return what, why[0].upper() + why[1:], source
