"""engine.drift() of a real engine: what the build wrote, and what changed requests make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import engines
from artefacts.errors import EngineError, RequestError
from build_engine import build
from engines.monitoring.summary import WINDOW

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

DIGITS = Path(__file__).parents[2] / "examples" / "01_digits"


@pytest.fixture(scope="module")
def engine_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drift") / "digits.engine"
    build(
        DIGITS / "digits.onnx",
        path,
        target="cpu",
        calibrator="minmax",
        calib_data=DIGITS / "calib",
        preprocess=DIGITS / "preprocess.yaml",
    )
    return path


def pixels() -> np.ndarray:
    with np.load(DIGITS / "test.npz", allow_pickle=False) as file:
        return file["images"].transpose(0, 3, 1, 2).astype(np.float32)


def prepared(values: np.ndarray, engine: engines.Engine) -> np.ndarray:
    spec = engine.preprocess
    assert spec is not None
    scaled = values * np.float32(spec["scale"])
    return (scaled - np.float32(spec["mean"][0])) / np.float32(spec["std"][0])


def test_the_manifest_says_what_the_samples_look_like(engine_path: Path) -> None:
    (summary,) = engines.read_manifest(engine_path).passport.inputs or ()
    with engines.load(engine_path) as engine:
        white, black = prepared(np.array([255.0, 0.0], np.float32), engine)
    assert (summary.name, summary.samples) == ("image", 200)
    assert summary.min == pytest.approx(black, abs=0.01)
    assert summary.max == pytest.approx(white, abs=0.01)
    assert summary.grid.channels == 1
    assert summary.limits is not None


def test_requests_are_usual_until_their_preprocessing_changes(engine_path: Path) -> None:
    with engines.load(engine_path, drift=True) as engine, engine.clone() as other:
        engine.warm_up()
        assert engine.drift()["image"].requests == 0
        images = prepared(pixels(), engine)
        for image in images[: 2 * WINDOW]:
            engine({"image": image[None]})
        assert engine.drift()["image"].verdict == "usual"
        for start in range(0, 8 * WINDOW, 8):  # batches, and by a clone
            other({"image": pixels()[start : start + 8]})
        found = engine.drift()["image"]
        assert found.verdict == "moved"
        assert {"saturation", "psi", "ks"} <= set(found.beyond)


def test_a_pool_has_one_watch(engine_path: Path) -> None:
    with engines.EnginePool(engine_path, 2, drift=True) as pool:
        images = pixels()
        for image in images[:WINDOW]:
            pool({"image": image[None]})
        assert pool.drift()["image"].verdict == "moved"


def test_what_is_not_watched_says_so(engine_path: Path, tmp_path: Path) -> None:
    with engines.load(engine_path) as engine, pytest.raises(RequestError, match="drift=True"):
        engine.drift()
    build(DIGITS / "digits.onnx", tmp_path / "f.engine", target="cpu", precision="fp32")
    with pytest.raises(EngineError, match="no summary of its inputs"):
        engines.load(tmp_path / "f.engine", drift=True)
