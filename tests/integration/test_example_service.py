"""examples/04_fastapi_service over real HTTP, with the digits engine."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import uvicorn
from PIL import Image

import build_engine
import engines
from artefacts.errors import EngineError
from calibrators import Preprocess
from tests.engine_models import save, scaled_sum

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = EXAMPLES / "01_digits"
PROGRAM = EXAMPLES / "04_fastapi_service" / "app.py"
LIMIT = 100_000
WAIT_S = 60


class Answer(NamedTuple):
    status: int
    text: str
    headers: Any

    @property
    def data(self) -> Any:
        return json.loads(self.text)


@pytest.fixture(scope="module")
def service() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fastapi_service", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # FastAPI looks the handlers' annotations up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("service") / "digits.int8.engine"
    arguments = ["--onnx", DIGITS / "digits.onnx", "--engine", path, "--target", "cpu"]
    arguments += ["--calib-data", DIGITS / "calib", "--calib-num", "40", "--calibrator", "minmax"]
    arguments += ["--preprocess", DIGITS / "preprocess.yaml", "--threads", "1"]
    assert build_engine.main([str(argument) for argument in arguments]) == 0
    return path


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    with np.load(DIGITS / "test.npz", allow_pickle=False) as file:
        return file["images"], file["labels"]


@contextmanager
def serve(app: Any) -> Iterator[str]:
    """The app on a free loopback port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(WAIT_S)
        assert not thread.is_alive()


def ask(url: str, data: bytes | None = None, content_type: str = "") -> Answer:
    request = urllib.request.Request(url, data, {"Content-Type": content_type} if data else {})
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return Answer(answer.status, answer.read().decode(), answer.headers)
    except urllib.error.HTTPError as err:
        with err:
            return Answer(err.code, err.read().decode(), err.headers)


def upload(url: str, raw: bytes, field: str = "file") -> Answer:
    head = f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="a.png"\r\n\r\n'
    body = head.encode() + raw + b"\r\n--edge--\r\n"
    return ask(f"{url}/predict", body, "multipart/form-data; boundary=edge")


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "PNG")
    return file.getvalue()


def until_ready(url: str) -> None:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            if ask(f"{url}/health").status == 200:
                return
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.02)
    raise AssertionError(f"not ready in {WAIT_S} s")


def metric(url: str, name: str) -> float:
    text = ask(f"{url}/metrics").text
    return float(re.search(rf"^engine_{name} (\S+)$", text, re.M)[1])


@pytest.fixture(scope="module")
def url(service: ModuleType, engine: Path) -> Iterator[str]:
    with (
        engines.EnginePool(engine, 2) as pool,
        serve(service.create_app(pool, limit_bytes=LIMIT)) as address,
    ):
        until_ready(address)
        yield address


def test_uploads_are_preprocessed_as_the_manifest_says(
    url: str, engine: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = digits[0][:40], digits[1][:40]
    with engines.load(engine) as loaded:
        preprocess = Preprocess.from_dict(loaded.preprocess)
        expected = [loaded({"image": preprocess(i.squeeze())[None]})["logits"][0] for i in images]
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda image: upload(url, png(image)), images))
    assert [answer.status for answer in answers] == [200] * 40
    np.testing.assert_allclose([answer.data["scores"] for answer in answers], expected, rtol=1e-6)
    assert np.mean([answer.data["class"] for answer in answers] == labels) >= 0.95
    assert answers[0].data["label"] is None


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"no image", "begins with b'no image', expected a JPEG, PNG, WebP or BMP"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "cannot be decoded"),
        (b"", "it is empty"),
    ],
)
def test_what_is_no_image_is_the_clients_fault(url: str, raw: bytes, said: str) -> None:
    answer = upload(url, raw)
    assert answer.status == 400
    assert said in answer.data["detail"]
    assert "a.png" in answer.data["detail"]


def test_a_request_without_the_file(url: str) -> None:
    assert upload(url, b"x", field="other").status == 422
    assert ask(f"{url}/predict", b"{}", "application/json").status == 422


def test_uploads_have_a_limit(url: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
    answer = upload(url, bytes(LIMIT + 1))
    assert answer.status == 413
    assert f"larger than {LIMIT} bytes" in answer.data["detail"]
    assert upload(url, png(digits[0][0])).status == 200


def test_metrics_are_prometheus_text_and_count(
    url: str, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    before = metric(url, "served_total")
    assert upload(url, png(digits[0][0])).status == 200
    assert metric(url, "served_total") == before + 1
    answer = ask(f"{url}/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert "# TYPE engine_served_total counter" in lines
    assert "engine_pool_size 2" in lines
    assert all(re.fullmatch(r"# (HELP|TYPE) engine_\w+ .+|engine_\w+ [0-9.e+-]+", x) for x in lines)


def test_a_full_pool_answers_503_and_health_goes_on(
    service: ModuleType, engine: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    picture = png(digits[0][0])
    with (
        engines.EnginePool(engine, 1, max_waiting=1) as pool,
        serve(service.create_app(pool, timeout_s=WAIT_S)) as url,
        ThreadPoolExecutor(1) as client,
    ):
        until_ready(url)
        with pool.borrow():
            waiting = client.submit(upload, url, picture)
            end = time.monotonic() + WAIT_S
            while metric(url, "waiting") < 1 and time.monotonic() < end:
                time.sleep(0.01)
            refused = upload(url, picture)
            assert ask(f"{url}/health").status == 200
        assert refused.status == 503
        assert "has 1 requests waiting, expected at most 1" in refused.data["detail"]
        assert refused.headers["Retry-After"] == "1"
        assert waiting.result(WAIT_S).status == 200
        assert metric(url, "rejected_total") == 1


def test_not_ready_before_the_engines_are_warm(
    service: ModuleType,
    engine: Path,
    digits: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warm_up, may_start = engines.EnginePool.warm_up, threading.Event()

    def late(pool: engines.EnginePool) -> None:
        may_start.wait(WAIT_S)
        warm_up(pool)

    monkeypatch.setattr(engines.EnginePool, "warm_up", late)
    with engines.EnginePool(engine, 1) as pool, serve(service.create_app(pool)) as url:
        end = time.monotonic() + WAIT_S
        while (cold := reachable(url)) is None and time.monotonic() < end:
            time.sleep(0.01)
        early = upload(url, png(digits[0][0]))
        may_start.set()
        until_ready(url)
        assert (cold.status, early.status) == (503, 503)
        assert "warming up" in cold.data["detail"]
        assert upload(url, png(digits[0][0])).status == 200


def reachable(url: str) -> Answer | None:
    try:
        return ask(f"{url}/health")
    except (urllib.error.URLError, ConnectionError):
        return None


def test_an_engine_without_preprocessing_is_refused(service: ModuleType, tmp_path: Path) -> None:
    options = engines.BuildOptions(target="cpu", precision="fp32", threads=1)
    engines.build(save(scaled_sum(), tmp_path), tmp_path / "m.engine", options)
    with (
        engines.EnginePool(tmp_path / "m.engine", 1) as pool,
        pytest.raises(EngineError, match=r"inputs \['left', 'right'\].*--preprocess"),
    ):
        service.create_app(pool)


def test_the_command_of_the_readme_serves_until_it_is_told_to_stop(
    engine: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, PROGRAM, "--engine", engine, "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            until_ready(f"http://127.0.0.1:{port}")
            assert upload(f"http://127.0.0.1:{port}", png(digits[0][0])).status == 200
        finally:
            server.send_signal(signal.SIGTERM)
            log = server.communicate(timeout=WAIT_S)[1]
    assert "Traceback" not in log


def test_the_command_explains_a_damaged_engine(engine: Path, tmp_path: Path) -> None:
    copy = tmp_path / "cut.engine"
    copy.write_bytes(engine.read_bytes()[:-1])
    copy.with_name("cut.engine.json").write_bytes(Path(f"{engine}.json").read_bytes())
    command = [sys.executable, PROGRAM, "--engine", copy]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: engine {copy} has")
