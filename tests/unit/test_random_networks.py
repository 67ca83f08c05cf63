"""What ``make soak`` compares engines on: valid, for one seed the same, of several kinds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx

from tests.networks.running import random_feeds, run
from tests.soak.random_networks import random_network


def test_networks_of_any_seed_run(rng: np.random.Generator) -> None:
    kinds: Counter[str] = Counter()
    for seed in rng.integers(1 << 31, size=40):
        model = random_network(int(seed))
        onnx.checker.check_model(model, full_check=True)
        assert model == random_network(int(seed))
        kinds.update(node.op_type for node in model.graph.node)
        for values in run(model, random_feeds(model, rng, dynamic=2)).values():
            assert np.isfinite(values).all()
    assert {"Conv", "Relu", "Add"} <= kinds.keys()
