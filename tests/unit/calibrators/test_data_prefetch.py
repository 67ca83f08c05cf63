"""Images are decoded ahead: in order, a bounded number, and not after anyone stopped asking."""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artefacts.errors import DataError
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples import sources
from calibrators.samples.data import InputSpec, Samples, open_samples

INPUTS = (InputSpec(name="x", dtype=np.dtype(np.float32), shape=("N", 3, 4, 4)),)
AHEAD = 2 * min(4, os.cpu_count() or 1) + 1


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images decoded so far."""
    names: list[str] = []

    def record(path: Path) -> Image.Image:
        names.append(path.name)
        if path.name == "30.png":
            raise DataError("image 30 is broken")
        return Image.new("RGB", (4, 4))

    monkeypatch.setattr(sources, "open_image", record)
    return names


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    for index in range(60):
        (tmp_path / f"{index:02}.png").write_bytes(b"")
    return open_samples(tmp_path, inputs=INPUTS, preprocess=Preprocess(scale=1))


def test_no_more_than_a_few_ahead(samples: Samples, decoded: list[str]) -> None:
    for count, sample in enumerate(samples[:30], start=1):
        assert sample.name == f"{count - 1:02}.png"
        assert len(decoded) <= count + AHEAD


def test_what_is_sliced_away_is_not_decoded(samples: Samples, decoded: list[str]) -> None:
    assert [sample.name for sample in samples[31::9]] == ["31.png", "40.png", "49.png", "58.png"]
    assert sorted(decoded) == ["31.png", "40.png", "49.png", "58.png"]


def test_stopping_stops_the_threads(samples: Samples, decoded: list[str]) -> None:
    running = iter(samples)
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert len(decoded) <= 1 + AHEAD
    assert not [t for t in threading.enumerate() if t.name.startswith("samples")]


def test_errors_come_in_their_place(samples: Samples, decoded: list[str]) -> None:
    seen: list[str] = []
    with pytest.raises(DataError, match="image 30 is broken"):
        deque(seen.append(sample.name) for sample in samples)
    assert seen == [f"{index:02}.png" for index in range(30)]
    assert not [t for t in threading.enumerate() if t.name.startswith("samples")]
