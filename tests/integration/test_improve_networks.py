"""Improvement and sensitivities on every family of networks: they run, and keep what is so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from graphs.comparable import comparable_outputs, with_outputs
from graphs.view import GraphView
from quantization.improve.improve import improve, improve_layers
from quantization.improve.methods import Methods
from quantization.lint.lint import lint
from quantization.measure.execution import load_int8, load_onnxruntime
from quantization.measure.fidelity import compare, run_all
from quantization.placement.fusion_groups import leave_float, only
from quantization.prepare.prepare import prepare
from quantization.search.sensitivity import sensitivities
from quantization.write.insert import insert_qdq
from tests.accuracy_models import calibrated
from tests.networks import NETWORKS
from tests.networks.choosing import (
    detector_with_suppression,
    segmenter,
    suppression_in_a_branch,
    two_stages,
)
from tests.networks.running import random_feeds


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network(name: str, rng: np.random.Generator) -> None:
    model = prepare(NETWORKS[name]())
    feeds = [random_feeds(model, rng) for _ in range(6)]
    placement, ranges = calibrated(model, feeds)
    before = model.SerializeToString()
    best, trials = improve(model, placement, ranges, feeds)
    assert model.SerializeToString() == before
    int8 = best.quantized(placement)
    onnx.checker.check_model(int8, full_check=True)
    assert not [finding for finding in lint(int8) if finding.severity == "fatal"]
    assert len(trials) == 3
    assert max(t.fidelity.sqnr_db for t in trials) >= trials[0].fidelity.sqnr_db
    # The float graph still computes the network: only biases were corrected for INT8's errors,
    # which leaves 13 dB and more where weights are random.
    exact = run_all(load_onnxruntime(model), feeds)
    assert compare(load_onnxruntime(best.model), feeds, exact).sqnr_db > 8
    assert compare(load_int8(int8), feeds, exact).sqnr_db > 5


@pytest.mark.parametrize("name", ["bert", "efficientnet", "lstm", "unet_transposed", "vit"])
def test_every_group_is_taken_alone(name: str, rng: np.random.Generator) -> None:
    """Corrected biases, moved activations: side runs stay those of the whole network."""
    model = prepare(NETWORKS[name]())
    feeds = [random_feeds(model, rng) for _ in range(6)]
    placement, ranges = calibrated(model, feeds)
    improved = improve_layers(model, placement, ranges, feeds[:4], methods=Methods())
    found = sensitivities(model, improved, placement, feeds[4:])
    exact = run_all(load_onnxruntime(model), feeds[4:])
    worst = max(found, key=lambda entry: entry.noise)
    for part, seen in (
        (only(placement, worst.group), worst.alone),
        (leave_float(placement, [worst.group], why=""), worst.without),
    ):
        whole = compare(load_int8(improved.quantized(part)), feeds[4:], exact)
        # A code that lies between two values falls either way where sums are in another order.
        assert seen.sqnr_db == pytest.approx(whole.sqnr_db, abs=2.0)


CHOOSING = (detector_with_suppression, segmenter, suppression_in_a_branch, two_stages)
FIRST_STAGE = ("n_Conv_0", "n_Conv_1", "n_Conv_2", "n_Conv_3")


@pytest.mark.parametrize("network", CHOOSING)
def test_what_chooses_is_improved_and_ranked(
    network: Callable[[], onnx.ModelProto], rng: np.random.Generator
) -> None:
    """Its outputs are other boxes each time; what they are chosen from is compared."""
    model = prepare(network())
    feeds = [smooth(model, rng) for _ in range(40)]
    placement, ranges = calibrated(model, feeds)
    best, trials = improve(model, placement, ranges, feeds)
    assert len({trial.mean_db for trial in trials}) == len(trials), "classes would tell less"
    judged = comparable_outputs(GraphView(model))
    exact, plain, better = (
        load_onnxruntime(with_outputs(each, judged))
        for each in (model, insert_qdq(model, placement, ranges), best.quantized(placement))
    )
    unseen = [smooth(model, rng) for _ in range(16)]
    wanted = run_all(exact, unseen)
    assert compare(better, unseen, wanted).sqnr_db > compare(plain, unseen, wanted).sqnr_db - 2
    found = sensitivities(model, best, placement, unseen[:2])
    assert all(entry.noise > 0 for entry in found if entry.group.name in FIRST_STAGE)


def smooth(model: onnx.ModelProto, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Noise that is alike from pixel to pixel, as images are, and as strong in each sample."""
    (x,) = random_feeds(model, rng).values()
    x = x.cumsum(axis=2).cumsum(axis=3)
    return {"x": (x / x.std()).astype(np.float32)}
