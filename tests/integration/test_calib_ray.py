"""Observation on a real local Ray gives the bytes of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from artefacts.errors import DataError
from calibrators.samples.samples import Sample
from calibrators.statistics.observe import observe
from calibrators.statistics.on_ray import observe_on_ray
from tests.integration.test_calib_observe import activations, images, small


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_ray_gives_the_same_bytes(tmp_path: Path) -> None:
    model, samples = small(), images(21)
    names, seen = activations(model), []
    found = observe_on_ray(
        model,
        names,
        [*samples, samples[0]],
        workers=2,
        preprocess={"scale": 1},
        progress=lambda *state: seen.append(state),
    )
    alone = observe(model, names, samples, preprocess={"scale": 1})
    assert found == alone
    found.save(tmp_path / "ray.stats.npz")
    alone.save(tmp_path / "alone.stats.npz")
    assert (tmp_path / "ray.stats.npz").read_bytes() == (tmp_path / "alone.stats.npz").read_bytes()
    assert seen[-1] == (21, 21)


def test_a_workers_error_is_the_users_sentence() -> None:
    bad = Sample(inputs={"images": np.zeros((1, 4, 8, 8), np.float32)}, name="bad")
    with pytest.raises(DataError, match=r"shapes \{'images': \[1, 4, 8, 8\]\}"):
        observe_on_ray(small(), ["Relu_0"], [bad], workers=1)
    with pytest.raises(DataError, match="0 samples"):
        observe_on_ray(small(), ["Relu_0"], [])
