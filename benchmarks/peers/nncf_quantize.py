"""NNCF's INT8 model of an ONNX file: ``python nncf_quantize.py MODEL SAMPLES.npz OUTPUT``.

Runs under NNCF's own environment, so it imports nothing of the project. Settings are NNCF's
defaults for the CPU (performance preset, fast bias correction) on the samples handed in.
"""

from __future__ import annotations

import sys

import nncf
import numpy as np
import onnx


def main() -> None:
    """Quantize and save."""
    model, samples, output = sys.argv[1:]
    with np.load(samples, allow_pickle=False) as file:
        (name,) = file.files
        rows = [{name: row[None]} for row in file[name]]
    quantized = nncf.quantize(onnx.load(model), nncf.Dataset(rows), subset_size=len(rows))
    onnx.save(quantized, output)


if __name__ == "__main__":
    main()
