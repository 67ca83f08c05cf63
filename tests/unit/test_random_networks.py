"""What ``make soak`` compares engines on: valid, for one seed the same, of several kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from tests.networks.running import random_feeds, run
from tests.soak.random_networks import random_network
from tests.soak.random_tokens import random_tokens


@pytest.mark.parametrize(
    ("make", "common"),
    [(random_network, {"Conv", "Relu", "Add"}), (random_tokens, {"MatMul", "Reshape", "Add"})],
)
def test_networks_of_any_seed_run(
    make: Callable[[int], onnx.ModelProto], common: set[str], rng: np.random.Generator
) -> None:
    kinds: Counter[str] = Counter()
    for seed in rng.integers(1 << 31, size=40):
        model = make(int(seed))
        onnx.checker.check_model(model, full_check=True)
        assert model == make(int(seed))
        kinds.update(node.op_type for node in model.graph.node)
        for values in run(model, random_feeds(model, rng, dynamic=2)).values():
            assert np.isfinite(values).all()
    assert common <= kinds.keys()
