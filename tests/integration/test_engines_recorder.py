"""A recorder beside a real engine: what it keeps is fair, within its limits, and calibrates."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

import engines
from artefacts.errors import InputError
from build_engine import build
from engines.monitoring.folder import RecorderFolder
from tests.engine_models import convnet
from tests.integration.cpu_engines import Built
from tests.integration.cpu_engines import build as build_small

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

DIGITS = Path(__file__).parents[2] / "examples" / "01_digits"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A network of (N, 3, 8, 8) images, of whose samples the manifest says axis 0."""
    passport = engines.Passport(sample_axes={"axes": {"input": 0}, "apart": True})
    model = convnet(np.random.default_rng())
    return build_small(tmp_path_factory.mktemp("small"), model, passport, precision="fp32")


def numbered(number: int, batch: int = 1) -> dict[str, np.ndarray]:
    """A request that says which it is."""
    return {"input": np.full((batch, 3, 8, 8), number, np.float32)}


def kept(folder: Path) -> list[int]:
    """Numbers of the requests on disk."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            assert file["input"].shape == (1, 3, 8, 8)
            found.append(int(file["input"].flat[0]))
    return found


def paced(engine: engines.Engine, recorder: engines.Recorder, request: dict) -> None:
    """A request, and time for the disk: what is asked here is not what happens under load."""
    engine(request)
    for _ in range(2000):
        if recorder._waiting.empty():
            return
        threading.Event().wait(0.001)


def test_the_whole_round_from_requests_to_an_engine(tmp_path: Path) -> None:
    first, second = tmp_path / "first.engine", tmp_path / "second.engine"
    settings = {"target": "cpu", "calibrator": "minmax", "preprocess": DIGITS / "preprocess.yaml"}
    build(DIGITS / "digits.onnx", first, calib_data=DIGITS / "calib", **settings)
    with np.load(DIGITS / "test.npz", allow_pickle=False) as file:
        images, labels = file["images"][:200], file["labels"][:200]
    with (
        engines.Recorder(tmp_path / "samples", share=1.0, limit=40) as recorder,
        engines.load(first, record=recorder) as engine,
    ):
        spec = engine.preprocess
        assert spec is not None
        mean, std = (np.float32(spec[key][0]) for key in ("mean", "std"))
        ready = (images.transpose(0, 3, 1, 2) / np.float32(255) - mean) / std
        for image in ready:
            paced(engine, recorder, {"image": image[None]})
    assert recorder.statistics().kept == 40
    build(DIGITS / "digits.onnx", second, calib_data=tmp_path / "samples", **settings)
    with engines.load(second) as again:
        assert np.mean(again({"image": ready})["logits"].argmax(1) == labels) >= 0.95
        assert again.manifest.passport.samples == 40
        assert again.preprocess == spec


def test_the_sample_is_uniform_and_never_more_than_its_limit(small: Built, tmp_path: Path) -> None:
    requests, limit, runs = 40, 10, 30
    times = np.zeros(requests)
    for run in range(runs):
        folder = tmp_path / str(run)
        with (
            engines.Recorder(folder, share=1.0, limit=limit) as recorder,
            engines.load(small.engine, record=recorder) as engine,
        ):
            for number in range(requests):
                paced(engine, recorder, numbered(number))
        assert recorder.statistics().dropped == 0
        found = kept(folder)
        assert len(set(found)) == limit
        times[found] += 1
    # Early and late requests alike; the bound is six standard deviations of the binomial.
    early, expected = times[: requests // 2].sum(), runs * limit / 2
    assert abs(early - expected) < 6 * np.sqrt(runs * limit / 4)


def test_of_a_batch_one_sample_and_of_requests_their_share(small: Built, tmp_path: Path) -> None:
    with (
        engines.Recorder(tmp_path / "s", share=0.2) as recorder,
        engines.load(small.engine, record=recorder) as engine,
    ):
        engine.warm_up()
        assert recorder.statistics().seen == 0
        for number in range(200):
            paced(engine, recorder, numbered(number, batch=4))
    done = recorder.statistics()
    assert done.seen == 200
    assert 5 < done.drawn < 90  # 40 with a standard deviation of 5.7
    assert done.kept == done.drawn == len(kept(tmp_path / "s"))


def test_a_folder_is_gone_on_with_after_a_restart(small: Built, tmp_path: Path) -> None:
    for start in (0, 50):
        with (
            engines.Recorder(tmp_path / "s", share=1.0, limit=10) as recorder,
            engines.load(small.engine, record=recorder) as engine,
        ):
            for number in range(start, start + 50):
                paced(engine, recorder, numbered(number))
    assert recorder.statistics().drawn == 100
    assert len(kept(tmp_path / "s")) == 10
    with engines.Recorder(tmp_path / "s", limit=4) as narrower:
        engines.load(small.engine, record=narrower).close()
    assert len(kept(tmp_path / "s")) == 4


def test_bytes_are_limited_too(small: Built, tmp_path: Path) -> None:
    with (
        engines.Recorder(tmp_path / "s", share=1.0, limit_bytes=5000) as recorder,
        engines.load(small.engine, record=recorder) as engine,
    ):
        for number in range(50):
            paced(engine, recorder, numbered(number))
    done = recorder.statistics()
    assert done.bytes == sum(path.stat().st_size for path in (tmp_path / "s").glob("*.npz"))
    assert 3000 < done.bytes <= 5000
    assert done.dropped >= 1


def test_statistics_without_inputs(small: Built, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    for _ in range(2):
        with (
            engines.Recorder(folder, share=1.0, inputs=False) as recorder,
            engines.load(small.engine, record=recorder) as engine,
        ):
            for number in (0, 3, -5, np.nan):
                paced(engine, recorder, numbered(number))
    assert kept(folder) == []
    values = 2 * 3 * 8 * 8
    assert json.loads((folder / "inputs.json").read_text()) == {
        "input": {
            "requests": 8,
            "values": 3 * values,
            "zeros": values,
            "not_finite": values,
            "min": -5.0,
            "max": 3.0,
            "below": {"2^2": values, "2^3": values},
        }
    }


def test_a_slow_or_full_disk_costs_samples_and_no_request(
    small: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    full = OSError(28, "No space left on device")

    def save(self: RecorderFolder, slot: int, data: bytes) -> None:
        may_write.wait(30)
        raise full

    monkeypatch.setattr(RecorderFolder, "save_sample", save)
    with (
        engines.Recorder(tmp_path / "s", share=1.0) as recorder,
        engines.load(small.engine, record=recorder) as engine,
    ):
        for number in range(100):
            assert engine(numbered(number))["output"].shape[0] == 1
        waited = recorder.statistics()
        may_write.set()
    done = recorder.statistics()
    assert done.seen == 100
    assert waited.dropped >= 90  # eight wait, one is being written
    assert done.failed == 100 - done.dropped
    assert done.error == "[Errno 28] No space left on device"


def test_a_closed_recorder_lets_its_engine_go_on(small: Built, tmp_path: Path) -> None:
    recorder = engines.Recorder(tmp_path / "s", share=1.0)
    with engines.load(small.engine, record=recorder) as engine:
        recorder.close()
        recorder.close()
        engine(numbered(1))
    assert kept(tmp_path / "s") == []
    with pytest.raises(InputError, match="is closed, expected an open one"):
        engines.load(small.engine, record=recorder)


def test_clones_of_a_pool_share_their_recorder(small: Built, tmp_path: Path) -> None:
    with engines.Recorder(tmp_path / "s", share=1.0) as recorder:
        with engines.EnginePool(small.engine, 2, record=recorder) as pool:
            pool.warm_up()
            for number in range(20):
                pool(numbered(number))
        assert recorder.statistics().seen == 20


def refused(engine: Path, folder: Path, said: str) -> None:
    with pytest.raises(InputError, match=said):
        engines.load(engine, record=engines.Recorder(folder))


def test_folders_of_others_are_refused(small: Built, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    refused(small.engine, tmp_path / "photos", r"holds 1 other files \(cat.jpg …\)")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    (tmp_path / "file").write_bytes(b"")
    refused(small.engine, tmp_path / "file", "is a file, expected a folder")
    refused(small.engine, tmp_path / "file" / "s", "cannot be written to")
    with engines.Recorder(tmp_path / "s") as recorder:
        engines.load(small.engine, record=recorder).close()
        refused(small.engine, tmp_path / "s", "in use by another recorder")
    state = tmp_path / "s" / ".recorder.json"
    state.write_text(state.read_text().replace("float32", "float16"))
    refused(small.engine, tmp_path / "s", "requests of an engine with inputs .*float16")
    state.write_text("{")
    refused(small.engine, tmp_path / "s", "damaged .recorder.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(small: Built, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir(mode=0o500)
    refused(small.engine, tmp_path / "s", "cannot be written to")


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.5}, {"limit": 0}])
def test_shares_and_limits_that_make_no_sense(tmp_path: Path, wrong: dict[str, float]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(InputError, match=f"{name} {value}"):
        engines.Recorder(tmp_path, **wrong)  # type: ignore[arg-type]
