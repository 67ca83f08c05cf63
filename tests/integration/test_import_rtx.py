"""Models of onnxruntime: refused by NVIDIA's parser as they are, built once imported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantization import import_quantized, prepare, strip
from tests.foreign_models import by_onnxruntime
from tests.networks import NETWORKS
from tests.observed import random_feeds
from tests.rtx_parser import parse


@pytest.mark.parametrize("operators", [False, True], ids=["QDQ", "QOperator"])
@pytest.mark.parametrize("unsigned", [False, True], ids=["int8", "uint8"])
def test_imported_model_builds(
    unsigned: bool, operators: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    model = prepare(NETWORKS["resnet_basic"]())
    feeds = random_feeds(model, rng)
    given = by_onnxruntime(model, feeds, tmp_path, operators=operators, unsigned=unsigned)
    assert parse(given).errors
    verdict = parse(import_quantized(given).model, build=True)
    assert verdict.errors == []
    assert not [warning for warning in verdict.warnings if "UINT8" in warning]
    assert parse(strip(given).model, build=True).errors == []
