"""What TensorRT-RTX's builder says of its plan while it builds it, in lines of its log.

The inspector would need the GPU that the plan is for; the builder prints the same list of layers at
verbose severity where the profiling verbosity is detailed, once for each compute capability.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

from engines.coverage import INT8
from engines.tensorrt.layers import first_factor, tensorrt_precisions

__all__ = ["LAYERS_TITLE", "is_arithmetic", "logged_layers", "logged_precisions"]

LAYERS_TITLE = "Layers:"
_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<type>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"Constants: \[(?P<constants>.*?)\], Outputs: \[(?P<outputs>.*)\], "
    r"TacticName: (?P<tactic>[^,]*),.*?Metadata: (?P<metadata>.*)$",
    re.MULTILINE,
)
_TENSOR = re.compile(r"Dimensions: \[([\d,-]*)\].*?Datatype: (\w+)")
_ARITHMETIC = ("correlation", "deconv", "gemm")  # convolution, transposed convolution, product
_ATTENTION = "mha"  # in the name of generated code that is a whole attention
# Generated code is named after its operations, four letters each: "__myl_CastMulFc_myl0_4" scales
# INT8 codes and multiplies them in floating point.
_PRODUCT = re.compile(r"^__myl_(?:[A-Z][a-z]*)*?Fc(?:[A-Z_]|$)")
_FLOATS = ("Float", "Half", "BFloat16")
_CODES = ("Int8", "FP8", "Int4", "FP4")


def logged_precisions(lists: Sequence[str]) -> dict[str, str]:
    """ONNX name → precision, INT8 where every list says so.

    Args:
        lists: messages that begin with ``LAYERS_TITLE``, one for each compute capability.
    """
    found: dict[str, str] = {}
    for text in lists:
        for name, precision in tensorrt_precisions({"Layers": list(logged_layers(text))}).items():
            found[name] = precision if found.get(name, INT8) == INT8 else found[name]
    return found


def logged_layers(text: str) -> Iterator[dict[str, Any]]:
    """Layers of one list as the inspector's JSON has them.

    Those that multiply come first: code around them carries the names of their nodes, too. What
    they multiply comes first among their inputs that are numbers; a skip behind it may be floating
    point, and a mask may stand before it.
    What reads nothing prepares constants, such as weights for a product in floating point.
    """
    for match in sorted(_LAYER.finditer(text), key=lambda match: not _multiplies(match)):
        reads = _TENSOR.findall(match["inputs"])
        if not reads and match["constants"].strip():
            continue
        layer: dict[str, Any] = {
            "Name": match["name"],
            "LayerType": "gemm" if _PRODUCT.match(match["name"]) else match["type"],
            "TacticName": match["tactic"],
            "Metadata": match["metadata"],
            "Inputs": [_typed(kind) for kind in _read(match, [kind for _, kind in reads])],
            "Outputs": [_typed(kind) for _, kind in _TENSOR.findall(match["outputs"])],
        }
        for dimensions, kind in _TENSOR.findall(match["constants"]):
            sizes = [int(size) for size in dimensions.split(",") if size]
            # else a scale or bias, one value a channel; an attention's constant is its mask
            if sum(size > 1 for size in sizes) > 1 and _ATTENTION not in match["name"]:
                layer["Weights"] = {"Type": kind, "Count": prod(sizes)}
                break
        yield layer


def is_arithmetic(layer: Mapping[str, Any]) -> bool:
    """Whether one of ``logged_layers`` is a convolution, a product or a whole attention."""
    return layer["LayerType"] in _ARITHMETIC or _ATTENTION in layer["Name"]


def _multiplies(layer: re.Match[str]) -> bool:
    return (
        layer["type"] in _ARITHMETIC
        or _ATTENTION in layer["name"]
        or _PRODUCT.match(layer["name"]) is not None
    )


def _read(layer: re.Match[str], kinds: list[str]) -> list[str]:
    """What counts of the types that a layer reads: of generated products the float factor."""
    if not _multiplies(layer):
        return kinds
    if _PRODUCT.match(layer["name"]):
        return sorted(kinds[:2], key=lambda kind: kind not in _FLOATS)[:1]
    numbers = [kind for kind in kinds if kind in (*_FLOATS, *_CODES)]
    return first_factor(layer["name"], numbers, codes=_CODES)


def _typed(kind: str) -> dict[str, str]:
    return {"Datatype": kind}
