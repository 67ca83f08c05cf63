"""The whole round over real HTTP: the data moves, the metric says so, what was recorded calibrates
a new engine, which is compared and takes over under load, and the answers are right again."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import engines
from build_engine import build
from calibrators import Preprocess
from tests.integration.example_service import DIGITS, WAIT_S, ask, metric, png, running

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

REQUESTS, CLIENTS = 10_000, 4
TOKEN = "a-token-of-more-than-16-letters"
SETTINGS = {"target": "cpu", "calibrator": "minmax", "preprocess": DIGITS / "preprocess.yaml"}
HEAD = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'


class Client:
    """One connection that is kept, as a proxy's are."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=WAIT_S)

    def scores(self, picture: bytes) -> list[float]:
        kind = {"Content-Type": "multipart/form-data; boundary=edge"}
        body = HEAD + picture + b"\r\n--edge--\r\n"
        self._connection.request("POST", "/predict", body, kind)
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        return json.loads(text)["scores"]

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def dusk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine that was calibrated with digits of half the brightness that will come."""
    folder = tmp_path_factory.mktemp("dusk")
    (folder / "calib").mkdir()
    for path in (DIGITS / "calib").glob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)) // 2).save(folder / "calib" / path.name)
    build(DIGITS / "digits.onnx", folder / "dusk.engine", calib_data=folder / "calib", **SETTINGS)
    return folder / "dusk.engine"


def accuracy(url: str, pictures: list[bytes], labels: np.ndarray) -> float:
    client = Client(url)
    found = [int(np.argmax(client.scores(picture))) for picture in pictures]
    client.close()
    return float(np.mean(found == labels))


def admin(url: str, path: str, body: object = None, method: str = "POST") -> dict:
    data = None if body is None else json.dumps(body).encode()
    answer = ask(f"{url}/admin/{path}", data, "application/json", method=method, token=TOKEN)
    assert answer.status == 200, answer.text
    return answer.data


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def under_load(url: str, pictures: list[bytes], change: Callable[[], object]) -> list[np.ndarray]:
    """All answers to so many requests; a third of the way through the change is made."""
    begun, counter = threading.Event(), iter(range(REQUESTS))

    def ask_on() -> list[tuple[int, list[float]]]:
        client, answers = Client(url), []
        for number in counter:  # threads share it: the next of a range is one step
            if number == REQUESTS // 3:
                begun.set()
            answers.append((number, client.scores(pictures[number % len(pictures)])))
        client.close()
        return answers

    with ThreadPoolExecutor(CLIENTS) as clients:
        working = [clients.submit(ask_on) for _ in range(CLIENTS)]
        try:
            assert begun.wait(WAIT_S)
            change()
            assert not all(each.done() for each in working)
        finally:
            found = [answer for each in working for answer in each.result()]
    return [np.array(scores) for _, scores in sorted(found)]


def test_the_whole_round(dusk: Path, tmp_path: Path) -> None:
    with np.load(DIGITS / "test.npz", allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    dim, bright = ([png(image // part) for image in images] for part in (2, 1))
    (tmp_path / "token").write_text(TOKEN)
    flags = ["--size", 2, "--drift", "--admin-token", tmp_path / "token"]
    flags += ["--record", tmp_path / "samples", "--record-share", 1, "--record-limit", 200]
    with running(dusk, *flags) as (url, log):
        # As it was calibrated, then brighter: the metric moves, and answers are worse.
        accuracy(url, dim[:60], labels[:60])
        assert metric(url, 'drift_verdict{input="image",verdict="usual"}') == 1
        before = accuracy(url, bright, labels)
        assert metric(url, 'drift_verdict{input="image",verdict="moved"}') == 1
        assert metric(url, 'drift_distance{input="image",distance="saturation"}') > 0.02

        # What was recorded is the calibration data of the next engine.
        until(lambda: metric(url, "recorder_kept") >= 150)
        day = dusk.with_name("day.engine")
        build(DIGITS / "digits.onnx", day, calib_data=tmp_path / "samples", **SETTINGS)

        # Compared on real requests, then put in the other's place while they come.
        admin(url, "shadow", {"engine": "day.engine", "share": 0.5})
        accuracy(url, bright[:100], labels[:100])
        until(lambda: metric(url, "shadow_compared_total") > 20)
        (output,) = admin(url, "shadow", method="GET")["outputs"]
        assert output["same"] < 1 or output["sqnr_db"] < 30
        served = metric(url, "served_total")
        answers = under_load(url, bright, lambda: admin(url, "replace", {"engine": "day.engine"}))
        assert metric(url, "served_total") - served == REQUESTS == len(answers)
        for count in ("rejected_total", "timed_out_total", "failed_total"):
            assert metric(url, count) == 0

        after = accuracy(url, bright, labels)
        assert metric(url, 'drift_verdict{input="image",verdict="usual"}') == 1
    assert "Traceback" not in log[0]
    assert before < 0.95 < 0.98 < after
    check_answers(answers, images, dusk, day)


def check_answers(answers: list[np.ndarray], images: np.ndarray, old: Path, new: Path) -> None:
    """Each is that of one engine or the other, and both have answered."""
    expected = []
    for path in (old, new):
        with engines.load(path) as engine:
            preprocess = Preprocess.from_dict(engine.preprocess)
            inputs = [preprocess(image.squeeze())[None] for image in images]
            expected.append([engine({"image": each})["logits"][0] for each in inputs])
    counts = [0, 0]
    for number, answer in enumerate(answers):
        near = [np.allclose(answer, each[number % len(images)], rtol=1e-5) for each in expected]
        assert any(near), number
        counts[int(near[1])] += 1
    assert min(counts) > REQUESTS // 10
