"""Which INT8 arithmetic a CPU has.

    vnni       sums of products in 32 bits: AVX512-VNNI, AVX-VNNI, AMX, ARM's dot product
    portable   sums of two products in 16 bits, which saturate: x86 without VNNI. A graph is
               portable if no pair of its weights can (needed_isa.py); it is then right everywhere.

What this CPU does is not looked up but tried, on the runtime that will run the engine: names of
CPUs and lists of flags say less (an emulator or a container may show those of another machine).
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np

from artefacts.errors import InputError
from artefacts.libraries import require
from engines.openvino.library import DEVICE, core, openvino

__all__ = ["CPU_ISAS", "CpuIsa", "cpu_isa", "resolve_cpu_isa"]

CpuIsa = Literal["vnni", "portable"]
CPU_ISAS = ("auto", "vnni", "portable")
LARGEST_WEIGHT, LARGEST_INPUT, CHANNELS = 127, 255, 32


@cache
def cpu_isa() -> CpuIsa:
    """What OpenVINO computes INT8 layers with on this CPU.

    A convolution of the largest weights with the largest inputs is run: 32 products of 127 and
    255 are 1,036,320 where sums have 32 bits, and half of it where pairs saturate.

    Raises:
        MissingLibraryError: OpenVINO is not installed.
    """
    ops = require("openvino.opset13", extra="cpu")
    limits = [ops.constant(np.float32(end)) for end in (0.0, LARGEST_INPUT)]
    source = ops.parameter([1, CHANNELS, 4, 4], np.float32)
    codes = np.full((CHANNELS, CHANNELS, 1, 1), LARGEST_WEIGHT, np.int8)
    weight = ops.multiply(
        ops.convert(ops.constant(codes), "f32"),
        ops.constant(np.ones((CHANNELS, 1, 1, 1), np.float32)),
    )
    read = ops.fake_quantize(source, *limits, *limits, 256)
    sums = ops.convolution(read, weight, [1, 1], [0, 0], [0, 0], [1, 1])
    compiled = core().compile_model(
        openvino().Model([sums], [source], "pairs"), DEVICE, {"INFERENCE_PRECISION_HINT": "f32"}
    )
    inputs = np.full((1, CHANNELS, 4, 4), LARGEST_INPUT, np.float32)
    found = float(compiled([inputs])[0].min())
    exact = LARGEST_WEIGHT * LARGEST_INPUT * CHANNELS
    return "vnni" if abs(found - exact) < 1e-3 * exact else "portable"


def resolve_cpu_isa(asked: str) -> CpuIsa:
    """``auto`` becomes what this CPU has.

    Raises:
        InputError: no such name.
    """
    if asked not in CPU_ISAS:
        raise InputError(f"cpu_isa is {asked!r}, expected one of {', '.join(CPU_ISAS)}; choose one")
    return cpu_isa() if asked == "auto" else asked  # type: ignore[return-value]
