"""What TensorRT-RTX's builder says of its plan while it builds it, in lines of its log.

The inspector would need the GPU that the plan is for; the builder prints the same list of layers at
verbose severity where the profiling verbosity is detailed, once for each compute capability.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from engines.coverage import INT8
from engines.tensorrt.layers import tensorrt_precisions

__all__ = ["LAYERS_TITLE", "logged_layers", "logged_precisions"]

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
    they multiply comes first among their inputs; a mask or skip behind it may be floating point.
    """
    for match in sorted(_LAYER.finditer(text), key=lambda match: not _multiplies(match)):
        reads = _TENSOR.findall(match["inputs"])
        layer: dict[str, Any] = {
            "Name": match["name"],
            "LayerType": match["type"],
            "TacticName": match["tactic"],
            "Metadata": match["metadata"],
            "Inputs": [_typed(kind) for _, kind in (reads[:1] if _multiplies(match) else reads)],
            "Outputs": [_typed(kind) for _, kind in _TENSOR.findall(match["outputs"])],
        }
        for dimensions, kind in _TENSOR.findall(match["constants"]):
            sizes = [int(size) for size in dimensions.split(",") if size]
            if sum(size > 1 for size in sizes) > 1:  # else a scale or bias, one value a channel
                layer["Weights"] = {"Type": kind, "Count": prod(sizes)}
                break
        yield layer


def _multiplies(layer: re.Match[str]) -> bool:
    return layer["type"] in _ARITHMETIC or _ATTENTION in layer["name"]


def _typed(kind: str) -> dict[str, str]:
    return {"Datatype": kind}
