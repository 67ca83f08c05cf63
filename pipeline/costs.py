"""What a layer gives back when it stays in float: measured where the target runs here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx
from numpy.typing import NDArray

import calibrators
import engines
import quantization
from artefacts.errors import UnsupportedError
from artefacts.litter import scratch_folder
from graphs.view import GraphView
from pipeline.calibration import Calibrated
from pipeline.job import Data
from pipeline.samples import calibration_samples
from pipeline.screen import Screen
from quantization.placement.fusion_groups import fusion_groups

__all__ = ["measured_costs"]


def measured_costs(
    options: engines.BuildOptions,
    data: Data,
    given: Calibrated,
    int8: onnx.ModelProto,
    screen: Screen,
) -> Mapping[str, float] | None:
    """Milliseconds that INT8 saves in each layer, by the profiler of a target that runs here.

    Returns:
        Node name → FP32 time less INT8 time; None where the layers cannot be timed, and
        multiply-accumulates stand in.
    """
    inputs = calibrators.input_specs(given.model)
    # One sample, alone: what is compared is FP32 with INT8, both at the same batch.
    batch = next(calibrators.batches(calibration_samples(data, given.model)[:1], 1, inputs=inputs))
    named = {
        name: group.name
        for group in fusion_groups(GraphView(given.model), given.placement)
        for name in group.nodes
    }
    try:
        before = _times(given.model, replace(options, precision="fp32"), batch.inputs, named)
        after = _times(int8, options, batch.inputs, named)
    except UnsupportedError as err:
        screen.add(f"costs: multiply-accumulates; layers cannot be timed here: {err}")
        return None
    screen.add("costs: milliseconds of each layer, FP32 less INT8, measured on this machine")
    return {name: time_ms - after.get(name, 0.0) for name, time_ms in before.items()}


def _times(
    model: onnx.ModelProto,
    options: engines.BuildOptions,
    request: Mapping[str, NDArray[Any]],
    named: Mapping[str, str],
) -> dict[str, float]:
    """Group → milliseconds of the kernels that compute its nodes; each kernel counts once."""
    with scratch_folder("costs") as folder:
        source, path = folder / "model.onnx", folder / "model.engine"
        quantization.save_model(model, source)
        engines.build(source, path, options, engines.Passport(), bar=False)
        found: dict[str, float] = {}
        with engines.load(path) as engine:
            for layer in engine.layer_times(request):
                # A fused kernel names several nodes; the first in a group takes its time.
                group = next((named[node] for node in layer.nodes if node in named), None)
                if group is not None:
                    found[group] = found.get(group, 0.0) + layer.time_ms
    return found
