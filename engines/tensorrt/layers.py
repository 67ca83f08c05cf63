"""What the layers of a plan compute in, from the engine inspector's JSON (detailed verbosity).

Of a layer that multiplies, the name of its tactic tells most: ``i8f16_i8i32`` reads INT8 and sums
in INT32, whatever it writes, and it is there also where dynamic shapes hide the formats.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from engines.coverage import INT8, UNKNOWN

__all__ = ["COPY", "first_factor", "plan_kernel", "tensorrt_precisions"]

# "[ONNX Layer: conv1 | caller (function)]", one for each fused node (OSS onnx-tensorrt,
# processMetadata); the separator between them differs between releases.
ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]|]*?)(?: \|[^\]]*)?\]")
# A part of the graph that a compiler of its own took: "{ForeignNode[first...last]}".
FOREIGN = re.compile(r"\{?ForeignNode\[(?P<first>.*?)(?:\.\.\.(?P<last>.*?))?\]\}?$")
# A conversion that nobody asked for; behind these words stand the nodes it is made for.
COPY = "Reformatting CopyNode"
MULTIPLYING = re.compile(r"conv|correlation|gemm|matrix.?multiply|fully.?connected|mha", re.I)
# Input type, then what the products are summed in: "i8i8_i8i32"; or an instruction of INT8.
INT8_TACTIC = re.compile(r"i8[if]\d+_i8i32|int8|imma|i8816|i16832|s8s8")
# Words of "Format/Datatype", its successors in TensorRT 11, and the type of weights.
PRECISIONS = (
    (("Int8", "INT8"), INT8),
    (("BF16", "BFloat16"), "bf16"),
    (("Half", "FP16"), "fp16"),
    (("Float", "FP32"), "fp32"),
)


def tensorrt_precisions(inspected: Mapping[str, Any], order: Sequence[str] = ()) -> dict[str, str]:
    """ONNX name → precision.

    Args:
        inspected: with ``Layers``; a layer is a mapping only where the engine was built with
            detailed verbosity.
        order: names of the ONNX nodes as the graph has them, to tell what lies between the first
            and the last of a part that a DLA computes.
    """
    layers = [layer for layer in inspected.get("Layers", ()) if isinstance(layer, Mapping)]
    # A node may be named by several kernels: those that multiply do its arithmetic, then those with
    # a tactic; code around them has the names of their nodes, too, and copies come last.
    layers.sort(
        key=lambda layer: (not _multiplies(layer), _is_copy(layer), not layer.get("TacticName"))
    )
    found: dict[str, str] = {}
    for layer in layers:
        names, precision = plan_kernel(layer)
        for name in (*names, *_between(layer, order)):
            found.setdefault(name, precision)
    return found


def plan_kernel(layer: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """ONNX names and precision of one layer of a plan.

    Args:
        layer: of the inspector's JSON; ``Name`` at least.
    """
    name = str(layer["Name"])
    names = ONNX_LAYER.findall(str(layer.get("Metadata", "")))
    if not names:
        names = [name] if _is_copy(layer) else _names(name)
    return tuple(dict.fromkeys(name.strip() for name in names)), _precision(layer)


def _names(name: str) -> list[str]:
    """``w + Conv_1 + PWN(PWN(Relu_2), Add_3)``: the nodes of a layer without metadata."""
    if part := FOREIGN.match(name):
        return [each for each in part.groups() if each]
    names = re.split(r" \+ |, ", name) if "PWN(" in name else name.split(" + ")
    return [_unwrapped(each) for each in names]


def _unwrapped(name: str) -> str:
    while name.startswith("PWN("):  # pointwise operations in one kernel, nested as they are called
        name = name.removeprefix("PWN(")
    return name[: len(name) - max(0, name.count(")") - name.count("("))]


def _is_copy(layer: Mapping[str, Any]) -> bool:
    return str(layer["Name"]).startswith(COPY)


def _multiplies(layer: Mapping[str, Any]) -> bool:
    """A convolution, a product, or a whole attention; not a copy that is named after one."""
    kinds = (layer.get("LayerType"), layer.get("ParameterType"))
    words = " ".join(str(kind) for kind in kinds if kind)
    if "Reformat" in words or _is_copy(layer):
        return False
    return bool(_weights(layer) or MULTIPLYING.search(words) or "mha" in str(layer["Name"]))


def first_factor(name: str, numbers: Sequence[str], *, codes: Collection[str]) -> list[str]:
    """The type of what a layer multiplies first, if it reads anything.

    Args:
        name: of the layer.
        numbers: types of its inputs in order, without booleans: a mask of those is no factor.
        codes: types that are quantized. A mask that is added may stand before Q, K and V of an
            attention: where all behind it are codes, it is none of them.
    """
    added = "mha" in name and len(numbers) > 2 and all(kind in codes for kind in numbers[1:])
    return list(numbers[1:2] if added else numbers[:1])


def _precision(layer: Mapping[str, Any]) -> str:
    """By its tactic, else its weights, else what it reads.

    Of what multiplies, the first factor counts: a bias or skip behind it may be in float.
    """
    multiplies = _multiplies(layer)
    if multiplies and INT8_TACTIC.search(str(layer.get("TacticName", ""))):
        return INT8
    if weights := _weights(layer):
        return _named(str(weights.get("Type")))
    inputs = [each for each in layer.get("Inputs") or () if isinstance(each, Mapping)]
    if _is_opaque(layer):
        return UNKNOWN
    read = [
        _named(" ".join(str(v) for k, v in tensor.items() if "type" in k.lower()))
        for tensor in inputs
    ]
    if multiplies:
        numbers = [kind for kind in read if kind != UNKNOWN]
        read = first_factor(str(layer["Name"]), numbers, codes=(INT8,))
    kinds = set(read)
    floating = kinds - {INT8}
    return min(floating) if floating else (INT8 if kinds else UNKNOWN)


def _weights(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    weights = layer.get("Weights") or layer.get("ConvWeights")  # ConvActPool prefixes its parts
    return weights if isinstance(weights, Mapping) and weights.get("Count") else {}


def _is_opaque(layer: Mapping[str, Any]) -> bool:
    """A part that says nothing of what is inside; a DLA computes all of a part in one precision."""
    return bool(FOREIGN.match(str(layer["Name"]))) and layer.get("LayerType") != "DLA"


def _between(layer: Mapping[str, Any], order: Sequence[str]) -> Sequence[str]:
    part = FOREIGN.match(str(layer["Name"]))
    if part is None or part["last"] is None or layer.get("Metadata"):
        return ()
    if part["first"] not in order or part["last"] not in order:
        return ()
    return order[order.index(part["first"]) : order.index(part["last"]) + 1]


def _named(words: str) -> str:
    return next(
        (name for marks, name in PRECISIONS if any(mark in words for mark in marks)), UNKNOWN
    )
