"""What all tests share: evaluation material, the golden switch, the GPU rule, randomness."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]

# A deadline is a timed assert: on a busy machine it fails tests that are right.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden files")
    parser.addoption("--require-gpu", action="store_true", help="fail GPU tests without a GPU")


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of real models and data, outside the project; its tests skip where it is absent."""
    folder = Path(os.environ.get("INT8_ASSETS", ROOT.parent / "shared" / "assets"))
    if not folder.is_dir():
        pytest.skip(f"evaluation material is not at {folder}; set INT8_ASSETS")
    return folder


@pytest.fixture
def rng(record_property: pytest.RecordProperty) -> np.random.Generator:
    """Fresh randomness; the seed is printed with a failure. INT8_SEED repeats a run."""
    seed = int(os.environ.get("INT8_SEED", secrets.randbits(32)))
    record_property("seed", seed)
    print(f"INT8_SEED={seed}")  # noqa: T201 - pytest shows captured output of failures only
    return np.random.default_rng(seed)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))
