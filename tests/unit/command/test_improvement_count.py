"""How many samples a network is fitted to: by its size, unless a number is given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graphs.macs import network_macs
from graphs.view import GraphView
from pipeline.improvement import Improver
from pipeline.job import Data, Quantize
from pipeline.screen import Screen
from quantization.improve.methods import EFFORTS, MOST_SAMPLES
from tests.networks import Builder

CHANNELS = 24


def free_image(sides: tuple[Any, Any] = ("H", "W"), batch: Any = "N") -> Any:
    net = Builder(seed=3)
    hidden = net.relu(net.conv(net.input("image", (batch, 3, *sides)), 3, CHANNELS))
    return net.build("free", net.conv(hidden, CHANNELS, CHANNELS))


def counted(model: Any, data: Path, tmp_path: Path, **asked: Any) -> int:
    improver = Improver(
        data=Data(calib_data=data),
        asked=Quantize(**asked),
        screen=Screen(bars=False, steps=1),
        checkpoint=tmp_path / "w.npz",
    )
    given: Any = SimpleNamespace(model=model)  # all that is read of what was calibrated
    return improver.count(given)


@pytest.mark.parametrize(("side", "fewest"), [(8, True), (256, False)])
@pytest.mark.parametrize("batch", ["N", 4])
def test_free_sides_count_as_in_the_samples(
    side: int, fewest: bool, batch: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    """A network that is small by what its file declares is not, on large images."""
    path = tmp_path / "images.npz"
    np.savez(path, image=rng.normal(size=(4, 3, side, side)).astype(np.float32))
    model = free_image(batch=batch)
    found = counted(model, path, tmp_path, improvement_samples=None)
    macs = network_macs(GraphView(free_image((side, side), 1)))
    assert (macs < EFFORTS["default"].small_macs) is fewest
    assert found == (MOST_SAMPLES if fewest else EFFORTS["default"].samples)
    assert counted(model, path, tmp_path, improvement_samples=9) == 9
    assert counted(model, path, tmp_path, improvement_samples=None, effort="fast") == 16


@pytest.mark.parametrize("word", EFFORTS)
def test_more_multiplications_are_never_more_samples(word: str) -> None:
    effort = EFFORTS[word]
    counts = [effort.samples_for(macs) for macs in (0, 1, 10**6, 4 * 10**7, 10**8, 10**9, 10**12)]
    assert counts == sorted(counts, reverse=True)
    assert {min(counts), max(counts)} == {effort.samples, effort.most_samples}


def test_between_small_and_large_the_work_is_what_is_afforded() -> None:
    effort = EFFORTS["default"]
    macs = int(1.25 * effort.small_macs)
    assert effort.samples_for(macs) == 128 == effort.most_samples / 1.25
    assert len(effort.variants(macs)) == 2
    assert len(effort.variants(int(macs / 1.25))) == 3
