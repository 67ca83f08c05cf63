"""Which samples rank layers: a few of those with most noise, and a few others."""

from __future__ import annotations

import numpy as np
import onnx

import calibrators
from artefacts.decibels import noise_share
from graphs.comparable import comparable_outputs
from graphs.view import GraphView
from pipeline.calibration import Calibrated
from pipeline.parts import Part
from quantization.measure.execution import Arrays, load_int8_quickly, load_onnxruntime
from quantization.measure.fidelity import compare

__all__ = ["ranking_feeds"]

RANKING_SAMPLES = 16  # to rank layers and methods; every candidate is scored on all


def ranking_feeds(given: Calibrated, int8: onnx.ModelProto, selection: Part) -> list[Arrays]:
    """Feeds to rank layers by: half of them those with most noise, half any others.

    A few samples often hold most of the noise, and a ranking that has not seen them is no guide.

    Args:
        given: the float network.
        int8: with everything in INT8 that may be.
        selection: the samples to choose from.
    """
    judged = comparable_outputs(GraphView(given.model))
    float_run = load_onnxruntime(given.model, outputs=judged)
    int8_run = load_int8_quickly(int8, outputs=judged)
    inputs = calibrators.input_specs(given.model)
    feeds = [batch.inputs for batch in calibrators.batches(selection, 1, inputs=inputs)]
    noise = [-noise_share(compare(int8_run, [feed], [float_run(feed)]).sqnr_db) for feed in feeds]
    # A model of a fixed batch takes several samples a feed: as many samples, fewer feeds.
    wanted = max(RANKING_SAMPLES // (calibrators.fixed_batch(inputs) or 1), 2)
    worst, others = np.split(np.argsort(noise, kind="stable"), [wanted // 2])
    # Every step-th by noise, so that the quiet samples are among the others, too.
    step = max(len(others) // (wanted - len(worst)), 1)
    return [feeds[row] for row in sorted((*worst, *others[::step][: wanted - len(worst)]))]
