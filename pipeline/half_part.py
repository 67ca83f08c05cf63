"""The floating-point part in float16, held against the same model in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import onnx

import calibrators
import quantization
from artefacts.errors import ModelError
from graphs.comparable import chosen_shapes
from graphs.view import GraphView
from pipeline.job import Data
from pipeline.runtime_gap import HALF_LIMIT_DB, Gap, GapMeter
from pipeline.samples import calibration_samples
from quantization.measure.execution import (
    Arrays,
    Run,
    load_int8,
    load_int8_quickly,
    load_onnxruntime,
)
from quantization.measure.half_storage import rounding_stored
from quantization.measure.magnitudes import largest_magnitudes
from quantization.write.fp16 import HalfModel

__all__ = ["in_half", "worst_gap"]

SAMPLES = 4


def in_half(
    data: Data,
    model: onnx.ModelProto,
    amax: Mapping[str, float],
    say: Callable[[str], None],
    *,
    insists: bool,
) -> HalfModel | None:
    """The model with its floating-point part in float16; None where that ruins it.

    Args:
        data: the samples, a few of which are tried.
        model: with or without Q/DQ, its floating-point part in float32.
        amax: largest |x| of all samples, by tensor; of the others a few samples tell.
        say: told how far the two are apart.
        insists: whether float16 was asked for by name: it stays, with a warning.
    """
    feeds = _feeds(data, model)
    try:
        magnitudes = largest_magnitudes(model, load_int8_quickly, feeds) if feeds else {}
    except ModelError:
        magnitudes = {}
    half = quantization.to_float16(model, amax, magnitudes=magnitudes)
    if not feeds or not half.halved:  # nothing to compare with, or nothing that changed
        return half
    try:
        gap = worst_gap(model, half.model, feeds)
    except ModelError as err:
        say(f"FP16 part against FP32: not measured: {err}")
        return half
    if gap is None or gap.explained:
        level = "" if gap is None else f" SQNR {gap.sqnr_db:.1f} dB"
        say(f"FP16 part against FP32:{level or ' no output to compare'} ({len(feeds)} samples)")
        return half
    found = f"output {gap.output} is {gap.sqnr_db:.1f} dB from FP32 with its FP16 part"
    if insists:
        say(f"warning: {found}, expected {gap.limit_db:.0f} dB or more; drop --float-part fp16")
        return half
    say(f"the floating-point part stays in FP32: {found}")
    return None


def worst_gap(model: onnx.ModelProto, half: onnx.ModelProto, feeds: Sequence[Arrays]) -> Gap | None:
    """The output farthest from where it should be; None where no output can be compared.

    Rounding to float16 may move as much as the model's own rounding to INT8 does, or what 25 dB
    leave.

    Raises:
        ModelError: one of the two does not run.
    """
    view = GraphView(model)
    chosen = chosen_shapes(view)
    names = [name for name in view.outputs if view.is_float(name) and name not in chosen]
    meter = GapMeter(batch=1)
    plain, wanted, found = _plain(model), load_int8(model), load_int8(rounding_stored(half))
    for feed in feeds:
        meter.add(None if plain is None else plain(feed), wanted(feed), found(feed), names)
    gaps = [replace(gap, limit_db=min(gap.limit_db, HALF_LIMIT_DB)) for gap in meter.gaps()]
    return min(gaps, key=lambda gap: gap.margin_db, default=None)


def _plain(model: onnx.ModelProto) -> Run | None:
    """A Q/DQ model without its rounding; None where there is none to take away."""
    if quantization.quantized_format(model) is None:
        return None
    try:
        return load_onnxruntime(quantization.strip(model).model)
    except ModelError:  # codes at the edge of the graph
        return None


def _feeds(data: Data, model: onnx.ModelProto) -> list[Arrays]:
    if not data.learns:
        return []
    inputs = calibrators.input_specs(model)
    samples = islice(
        calibration_samples(data, model), SAMPLES * (calibrators.fixed_batch(inputs) or 1)
    )
    return [batch.inputs for batch in calibrators.batches(samples, 1, inputs=inputs)]
