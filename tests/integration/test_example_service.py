"""examples/04_fastapi_service over real HTTP, with the digits engine."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import resource
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
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import uvicorn
from PIL import Image

import build_engine
import engines
from artefacts.errors import EngineError, RequestError
from calibrators import ImageLimits, Preprocess
from tests.engine_models import save, scaled_sum

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = EXAMPLES / "01_digits"
PROGRAM = EXAMPLES / "04_fastapi_service" / "app.py"
LIMIT = 100_000
LIMITS = ImageLimits(file_bytes=LIMIT, pixels=1 << 18)
WAIT_S = 60


class Answer(NamedTuple):
    status: int
    text: str
    headers: Any

    @property
    def data(self) -> Any:
        return json.loads(self.text)


@pytest.fixture(scope="module")
def service() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("fastapi_service", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # FastAPI looks the handlers' annotations up there
    sys.path.insert(0, str(PROGRAM.parent))  # as Python does for the program itself
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(PROGRAM.parent))


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
def serve(app: Any, http: Any = "h11") -> Iterator[str]:
    """The app on a free loopback port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", http=http))
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
        serve(service.create_app(pool, limits=LIMITS)) as address,
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
    sample = r'# (HELP|TYPE) engine_\w+ .+|engine_\w+(\{reason="\w+"\})? [0-9.e+-]+'
    assert all(re.fullmatch(sample, line) for line in lines)


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


def refused(url: str, reason: str) -> int:
    text = ask(f"{url}/metrics").text
    return int(re.search(rf'^engine_refused_total{{reason="{reason}"}} (\d+)$', text, re.M)[1])


def test_refusals_are_counted_by_reason(url: str) -> None:
    before = {why: refused(url, why) for why in ("bad_image", "too_large", "bad_form")}
    upload(url, b"no image")
    upload(url, bytes(LIMIT + 1))
    upload(url, b"x", field="other")
    assert {why: refused(url, why) - before[why] for why in before} == dict.fromkeys(before, 1)


def test_an_upload_that_would_cost_too_much_is_refused_by_its_header(url: str) -> None:
    large = io.BytesIO()
    Image.new("L", (513, 512)).save(large, "PNG")
    answer = upload(url, large.getvalue())
    assert answer.status == 400
    assert "513 × 512 pixels, expected at most 262144" in answer.data["detail"]
    scans = io.BytesIO()
    Image.new("L", (512, 512)).save(scans, "JPEG", progressive=True)
    raw = scans.getvalue()
    raw = raw[:-2] + raw[raw.rindex(b"\xff\xda") : -2] * 20 + raw[-2:]
    assert "26 scans of 512 × 512 pixels" in upload(url, raw).data["detail"]


def test_nothing_is_decoded_before_an_engine_is_free(service: ModuleType, engine: Path) -> None:
    with (
        engines.EnginePool(engine, 1, max_waiting=0) as pool,
        serve(service.create_app(pool)) as url,
    ):
        until_ready(url)
        with pool.borrow():
            assert upload(url, b"no image").status == 503
        assert upload(url, b"no image").status == 400


def test_an_engine_that_fails_is_ours_and_not_ready(
    service: ModuleType, engine: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    picture = png(digits[0][0])
    with engines.EnginePool(engine, 1) as pool, serve(service.create_app(pool)) as url:
        until_ready(url)
        with pool.borrow() as lent:
            runner, lent._runner = lent._runner, FailingRunner()
        for _ in range(3):
            assert ask(f"{url}/health").status == 200
            answer = upload(url, picture)
            assert answer.status == 500
            assert "engine fails on any request" in answer.data["detail"]
        for path in ("health", "live"):
            answer = ask(f"{url}/{path}")
            assert answer.status == 503
            assert "engine failed 3 times in a row" in answer.data["detail"]
        assert refused(url, "engine") == metric(url, "failed_in_row") == 3
        with pool.borrow() as lent:
            lent._runner = runner
        assert upload(url, picture).status == 200
        assert ask(f"{url}/health").status == 200


class FailingRunner:
    """A runtime that has broken down, and blames the request as OpenVINO's runner does."""

    def run(self, arrays: object, *, copy: bool, on_device: bool) -> dict[str, Any]:
        raise RequestError("request fails in OpenVINO (device lost)")


def test_a_closed_pool_is_not_the_clients_fault(
    service: ModuleType, engine: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    pool = engines.EnginePool(engine, 1)
    with serve(service.create_app(pool)) as url:
        until_ready(url)
        pool.close()
        assert upload(url, png(digits[0][0])).status == 503


def stalled(url: str, sent: bytes) -> socket.socket:
    """A connection whose client sends a part of a request and nothing more."""
    host, port = url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), timeout=WAIT_S)
    client.sendall(sent)
    return client


def ended(client: socket.socket) -> bool:
    with client:
        try:
            return client.recv(1) == b""
        except ConnectionResetError:
            return True


HALF_HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
HALF_BODY = HALF_HEAD + b"Content-Type: multipart/form-data; boundary=edge\r\n"
HALF_BODY += b"Content-Length: 5000\r\n\r\n--edge\r\n"


def test_a_health_probe_gets_in_however_many_senders_have_stalled(
    service: ModuleType, engine: Path
) -> None:
    class Narrow(service.HastyProtocol):
        most = 4

    with (
        engines.EnginePool(engine, 1) as pool,
        serve(service.create_app(pool), Narrow) as url,
    ):
        until_ready(url)
        senders = [stalled(url, (HALF_HEAD, HALF_BODY)[number % 2]) for number in range(12)]
        assert ask(f"{url}/health").status == 200
        assert all(ended(sender) for sender in senders[:8])
        for sender in senders:
            sender.close()
        until_ready(url)


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, HALF_BODY], ids=["nothing", "head", "body"])
def test_a_request_that_never_ends_is_cut_off(
    service: ModuleType, engine: Path, sent: bytes
) -> None:
    class Hasty(service.HastyProtocol):
        arrives_within_s = 0.05

    with (
        engines.EnginePool(engine, 1) as pool,
        serve(service.create_app(pool), Hasty) as url,
    ):
        until_ready(url)
        assert ended(stalled(url, sent))


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
            waiting = stalled(f"http://127.0.0.1:{port}", HALF_BODY)  # keeps nobody
        finally:
            server.send_signal(signal.SIGTERM)
            log = server.communicate(timeout=WAIT_S)[1]
    waiting.close()
    assert "Traceback" not in log
    assert "Cancel" not in log


def test_a_burst_of_connections_takes_no_descriptor_that_is_needed(engine: Path) -> None:
    """They come while the service does not look: all are there at once when it does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, PROGRAM, "--engine", engine, "--port", str(port)]
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (256, 256))
    crowd = [socket.socket() for _ in range(400)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=few) as server:
        try:
            until_ready(f"http://127.0.0.1:{port}")
            server.send_signal(signal.SIGSTOP)
            for client in crowd:
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
            server.send_signal(signal.SIGCONT)
            until_ready(f"http://127.0.0.1:{port}")
        finally:
            server.send_signal(signal.SIGTERM)
            log = server.communicate(timeout=WAIT_S)[1]
    for client in crowd:
        client.close()
    assert "Too many open files" not in log
    assert "Traceback" not in log


def test_the_command_explains_a_damaged_engine(engine: Path, tmp_path: Path) -> None:
    copy = tmp_path / "cut.engine"
    copy.write_bytes(engine.read_bytes()[:-1])
    copy.with_name("cut.engine.json").write_bytes(Path(f"{engine}.json").read_bytes())
    command = [sys.executable, PROGRAM, "--engine", copy]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: engine {copy} has")
