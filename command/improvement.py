"""Better INT8 with no layer given up: kept only where it helps on samples it has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import onnx

import calibrators
import quantization
from artefacts.graph_hash import graph_hash
from command.calibration import calibration_samples
from command.flags import Job
from command.screen import Screen
from quantization.execution import Arrays, load_onnxruntime
from quantization.improve import Improved, Methods, improve_layers

__all__ = ["improve"]


def improve(
    job: Job,
    prepared: onnx.ModelProto,
    placement: quantization.Placement,
    ranges: calibrators.Ranges,
    passport: dict[str, Any],
    screen: Screen,
) -> Improved | None:
    """Choose ranges by their readers' error, round weights to the samples, correct biases.

    Two thirds of ``--improve`` samples are learned from, one third decides whether the result is
    taken: it must be nearer to FP32 than the plain ranges are.

    Returns:
        The improved model and everything ``insert_qdq`` needs; None where it did not help.
    """
    if not job.improve or (job.calib_data is None and job.random_calibration is None):
        return None
    samples = calibration_samples(job, prepared)
    feeds = [dict(sample.inputs) for sample in islice(samples, job.improve)]
    held_out = feeds[2::3]
    learned = [feed for index, feed in enumerate(feeds) if index % 3 != 2]
    if not held_out:
        return None
    screen.add(f"improving ranges, rounding and biases on {len(learned)} samples")
    with screen.bar("nodes") as progress:
        found = improve_layers(
            prepared,
            placement,
            ranges,
            learned,
            load_onnxruntime,
            methods=Methods(),
            progress=progress,
        )
    plain = quantization.insert_qdq(prepared, placement, ranges)
    before, after = sqnr_db(prepared, [plain, found.quantized(placement)], held_out)
    taken = after > before
    screen.add(
        f"SQNR on {len(held_out)} other samples {before:.1f} → {after:.1f} dB"
        f"{'' if taken else ': not taken'}"
    )
    if not taken:
        return None
    quantization.save_model(found.model, job.beside(".improved.onnx"))
    found.ranges.save(job.beside(".ranges.json"))
    passport["improved_graph_hash"] = graph_hash(found.model)
    passport["improvement_samples"] = len(learned)
    return found


def sqnr_db(
    reference: onnx.ModelProto, models: Sequence[onnx.ModelProto], feeds: Sequence[Arrays]
) -> list[float]:
    """Smallest signal to noise ratio among the outputs, ``10 log10(sum y^2 / sum (y - y')^2)``."""
    run = load_onnxruntime(reference)
    exact = [run(feed) for feed in feeds]
    levels = []
    for model in models:
        # Q/DQ computed in float, as TensorRT's own accumulators do; not this CPU's kernels.
        other = load_onnxruntime(model, optimize=False)
        signal: dict[str, float] = {}
        noise: dict[str, float] = {}
        for feed, outputs in zip(feeds, exact, strict=True):
            for name, found in other(feed).items():
                y = np.asarray(outputs[name], np.float64)
                signal[name] = signal.get(name, 0.0) + float(np.sum(y**2))
                noise[name] = noise.get(name, 0.0) + float(np.sum((y - found) ** 2))
        ratios = [signal[n] / noise[n] for n in noise if signal[n] > 0 and noise[n] > 0]
        levels.append(10 * math.log10(min(ratios)) if ratios else math.inf)
    return levels
