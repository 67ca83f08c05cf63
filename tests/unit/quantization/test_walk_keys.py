"""What the walks of a checkpoint are known by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphs.identity import graph_hash
from pipeline import improvement
from pipeline.improvement import Improver
from pipeline.job import Data, Quantize
from pipeline.screen import Screen
from quantization.improve import improve as improving
from quantization.improve.checkpoint import Checkpoint
from quantization.improve.methods import EFFORTS, NOTHING
from quantization.placement import place
from tests.networks import Builder
from tests.observed import observed_amax, ranges_of


def test_samples_are_hashed_once_for_all_walks(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Builder(seed=1)
    model = net.build(
        "dense", net.gemm(net.relu(net.gemm(net.input("x", ("N", 24)), 24, 32)), 32, 32)
    )
    feeds = [{"x": rng.normal(size=(1, 24)).astype(np.float32)} for _ in range(8)]
    placement = place(model)
    amax = observed_amax(model, {"x": np.concatenate([feed["x"] for feed in feeds])})
    ranges = ranges_of(model, {name: amax[name] for name in placement.tensors})
    variants = [v for v in EFFORTS["thorough"].variants(0) if v != NOTHING][:2]
    hashed, taken = [], []
    of, take = Checkpoint.of, Checkpoint.take
    monkeypatch.setattr(Checkpoint, "of", lambda c, s: (hashed.append(len(s)), of(c, s))[1])
    monkeypatch.setattr(Checkpoint, "take", lambda c, key: (taken.append(key), take(c, key))[1])
    checkpoint = Checkpoint(tmp_path / "m.walks.npz")
    improving.improve(model, placement, ranges, feeds, variants=variants, checkpoint=checkpoint)
    assert len(set(taken)) == len(variants) == 2
    assert len(hashed) == 1
    assert graph_hash(model) == ranges.graph_hash


@pytest.mark.parametrize("change", ["value", "name", "order"])
def test_other_samples_are_other_walks(change: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "m.walks.npz")
    samples = [{"x": np.arange(3.0)}, {"x": np.ones(3)}]
    others = {
        "value": [{"x": np.arange(3.0)}, {"x": np.full(3, 1.5)}],
        "name": [{"y": np.arange(3.0)}, {"x": np.ones(3)}],
        "order": samples[::-1],
    }
    wanted = checkpoint.of(samples).samples
    assert checkpoint.of([dict(sample) for sample in samples]).samples == wanted
    assert checkpoint.of(others[change]).samples != wanted


def test_the_file_is_read_once_for_all_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr(improvement, "Checkpoint", lambda path: (read.append(path), object())[1])
    improver = Improver(
        data=Data(),
        asked=Quantize(improvement_samples=8),
        screen=Screen(bars=False, steps=1),
        checkpoint=tmp_path / "w.npz",
    )
    assert not read  # an improvement that is skipped reads nothing
    assert improver._walks is improver._walks
    assert read == [tmp_path / "w.npz"]
