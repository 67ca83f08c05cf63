"""Drift and recorder in a real Triton server: in its metrics, on disk, and off by default."""

from __future__ import annotations

import itertools
import json
import re
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import engines
from build_engine import build
from engines.__main__ import main
from tests.integration.example_service import DIGITS
from tests.triton_server import find_triton, free_ports, serve

SETTINGS = {"target": "cpu", "calibrator": "minmax", "preprocess": DIGITS / "preprocess.yaml"}


class Seen(NamedTuple):
    """Metrics after usual and after inverted digits, requests sent, and the server's folders."""

    usual: str
    moved: str
    sent: int
    repository: Path
    samples: Path


def answer(port: int, model: str, pixels: np.ndarray) -> None:
    spec = {"name": "image", "datatype": "FP32", "shape": pixels.shape}
    body = json.dumps({"inputs": [spec | {"data": pixels.ravel().tolist()}]}).encode()
    url = f"http://127.0.0.1:{port}/v2/models/{model}/infer"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as found:
        assert len(json.loads(found.read())["outputs"][0]["data"]) == 10


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as found:
        return found.read().decode()


def value(text: str, name: str, **labels: str) -> float:
    wanted = {f'{key}="{label}"' for key, label in labels.items()}
    for line in re.findall(rf"^{name}\{{(.*)\}} (\S+)$", text, re.M):
        if wanted <= set(line[0].split(",")):
            return float(line[1])
    raise AssertionError(f"no {name} {labels} in\n{text}")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    triton, folder = find_triton(), tmp_path_factory.mktemp("monitored")
    engine, repository = folder / "digits.engine", folder / "repository"
    build(DIGITS / "digits.onnx", engine, calib_data=DIGITS / "calib", **SETTINGS)
    words = ["export-triton", engine, repository, "--name", "watched", "--drift"]
    words += ["--record", folder / "samples", "--record-share", "1", "--record-limit", "60"]
    assert main([str(word) for word in words]) == 0
    assert main(["export-triton", str(engine), str(repository), "--name", "plain"]) == 0
    with np.load(DIGITS / "test.npz", allow_pickle=False) as file:
        images = file["images"][:50].transpose(0, 3, 1, 2).astype(np.float32)
    spec = engines.read_manifest(engine).passport.preprocess
    texts, sent, (port, _) = [], 0, free_ports()
    with serve(triton, repository, folder, models=("watched", "plain"), metrics_port=port) as ports:
        for levels in (images, 255 - images):
            ready = (levels * np.float32(spec["scale"]) - spec["mean"][0]) / spec["std"][0]
            shown = ""
            for image in itertools.chain(ready, itertools.cycle(ready)):
                answer(ports[0], "watched", image[None])
                answer(ports[0], "plain", image[None])
                sent += 1
                if sent % len(images) == 0 or shown:  # shown every second: until this one is
                    shown = metrics(port)
                    if value(shown, "engine_recorder_seen_total", model="watched") == sent:
                        break
                    time.sleep(0.1)
            texts.append(shown)
    return Seen(*texts, sent, repository, folder / "samples")


def test_drift_is_shown_by_input_and_distance(seen: Seen) -> None:
    watched = {"model": "watched", "version": "1", "input": "image"}
    name = "engine_drift_verdict"
    assert value(seen.usual, name, verdict="usual", **watched) == 1
    assert value(seen.moved, name, verdict="usual", **watched) == 0
    assert value(seen.moved, name, verdict="moved", **watched) == 1
    limit = value(seen.moved, "engine_drift_limit", distance="psi", **watched)
    assert value(seen.usual, "engine_drift_distance", distance="psi", **watched) <= limit
    assert value(seen.moved, "engine_drift_distance", distance="psi", **watched) > limit


def test_requests_are_recorded_and_warm_ups_are_not(seen: Seen) -> None:
    assert value(seen.moved, "engine_recorder_seen_total", model="watched") == seen.sent
    (own,) = seen.samples.iterdir()
    assert own.name == "1-watched_0_0"
    samples = sorted(own.glob("*.npz"))
    # Of a disk that cannot follow some are lost, and counted; requests never wait for it.
    lost = value(seen.moved, "engine_recorder_dropped_total", model="watched")
    assert 60 - lost <= len(samples) <= 60
    assert len(samples) > 40
    assert 60 - lost <= value(seen.moved, "engine_recorder_kept", model="watched") <= 60
    for path in samples:
        with np.load(path, allow_pickle=False) as file:
            assert file["image"].shape == (1, 1, 32, 32)
            assert np.ptp(file["image"]) > 0  # a warm-up's zeros are all the same


def test_what_was_recorded_calibrates(seen: Seen, tmp_path: Path) -> None:
    engine = tmp_path / "again.engine"
    build(DIGITS / "digits.onnx", engine, calib_data=seen.samples, **SETTINGS)
    # A few digits were sent more than once, and count once.
    assert 40 < engines.read_manifest(engine).passport.samples <= 60


def test_nothing_is_watched_or_kept_by_default(seen: Seen) -> None:
    ours = [line for line in seen.moved.splitlines() if line.startswith("engine_")]
    assert ours
    assert not [line for line in ours if 'model="plain"' in line]
    assert "parameters" not in (seen.repository / "plain" / "config.pbtxt").read_text()


def test_requests_are_answered_where_the_server_shows_no_metrics(
    seen: Seen, tmp_path: Path
) -> None:
    with serve(find_triton(), seen.repository, tmp_path, models=("watched",)) as ports:
        for _ in range(3):
            answer(ports[0], "watched", np.zeros((1, 1, 32, 32), np.float32))
