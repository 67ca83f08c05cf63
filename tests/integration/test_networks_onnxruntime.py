"""Every network in onnxruntime after insertion: runs, and stays close to FP32."""

from __future__ import annotations

import numpy as np
import pytest

from quantization.placement import place
from quantization.prepare.prepare import prepare
from quantization.write.insert import insert_qdq
from tests.networks import NETWORKS
from tests.networks.running import minmax_ranges, random_feeds, run, sqnr_db

# Random weights and min-max ranges of the same samples; 20 draws gave 20 to 46 dB, and for DLA,
# which rounds every tensor, 10 dB (the mask of a BERT) to 40 dB. A wrong scale or axis gives less.
LEAST_DB = {"tensorrt": 15.0, "cpu": 15.0, "dla": 6.0}


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("profile", sorted(LEAST_DB))
def test_close_to_fp32(name: str, profile: str, rng: np.random.Generator) -> None:
    model = prepare(NETWORKS[name]())
    placement = place(model, profile=profile)
    feeds = random_feeds(model, rng)
    ranges = minmax_ranges(model, placement.tensors, feeds)
    result = run(insert_qdq(model, placement, ranges), feeds)
    for output, reference in run(model, feeds).items():
        assert sqnr_db(reference, result[output]) > LEAST_DB[profile]
