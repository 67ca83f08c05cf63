"""An improvement that was interrupted goes on, and one that is repeated is replayed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from artefacts.errors import ArtefactError
from artefacts.files import sha256_file
from quantization import Improved, improve, prepare
from quantization.improve import decisions
from quantization.improve.checkpoint import Checkpoint
from quantization.improve.methods import NOTHING, Methods
from tests.accuracy_models import calibrated
from tests.networks import NETWORKS
from tests.networks.running import random_feeds

VARIANTS = (NOTHING, Methods())


def equal(left: Improved, right: Improved) -> bool:
    weights = left.weights.keys() == right.weights.keys() and all(
        np.array_equal(weight.codes, right.weights[name].codes)
        and np.array_equal(weight.scale, right.weights[name].scale)
        for name, weight in left.weights.items()
    )
    model = left.model.SerializeToString() == right.model.SerializeToString()
    return weights and model and left.ranges == right.ranges and left.methods == right.methods


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the layers that were rounded, in order."""
    names: list[str] = []
    work = decisions.Decisions._round

    def noted(self, layer, *rest):  # type: ignore[no-untyped-def]
        names.append(layer.tensor)
        return work(self, layer, *rest)

    monkeypatch.setattr(decisions.Decisions, "_round", noted)
    return names


def test_what_was_decided_is_not_decided_again(
    tmp_path: Path, rng: np.random.Generator, rounded: list[str]
) -> None:
    model = prepare(NETWORKS["resnet_basic"]())
    feeds = [random_feeds(model, rng) for _ in range(8)]
    placement, ranges = calibrated(model, feeds)
    given = (model, placement, ranges, feeds)
    whole, _ = improve(*given, variants=VARIANTS)
    layers = list(rounded)
    assert len(layers) > 2
    path = tmp_path / "m.walks.npz"

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    rounded.clear()
    with pytest.raises(KeyboardInterrupt):
        improve(*given, variants=VARIANTS, progress=stop, checkpoint=Checkpoint(path))
    first = list(rounded)
    assert 0 < len(first) < len(layers)

    rounded.clear()
    resumed, _ = improve(*given, variants=VARIANTS, checkpoint=Checkpoint(path))
    assert [*first, *rounded] == layers
    assert equal(resumed, whole)

    rounded.clear()
    digest = sha256_file(path)
    again, _ = improve(*given, variants=VARIANTS, checkpoint=Checkpoint(path))
    assert not rounded
    assert equal(again, whole)
    assert sha256_file(path) == digest

    others = [random_feeds(model, rng) for _ in range(8)]
    improve(model, placement, ranges, others, variants=VARIANTS, checkpoint=Checkpoint(path))
    assert rounded == layers


def test_a_damaged_file_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    model = prepare(NETWORKS["resnet_basic"]())
    feeds = [random_feeds(model, rng) for _ in range(4)]
    placement, ranges = calibrated(model, feeds)
    path = tmp_path / "m.walks.npz"
    improve(model, placement, ranges, feeds, variants=VARIANTS, checkpoint=Checkpoint(path))
    data = path.read_bytes()
    for end in (10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(ArtefactError, match=rf"{path} cannot be read .* delete it"):
            Checkpoint(path)
