"""examples/04_fastapi_service over real HTTP, with the digits engine."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import engines
from artefacts.errors import EngineError, RequestError
from calibrators import Preprocess
from tests.engine_models import save, scaled_sum
from tests.integration.example_service import (
    LIMIT,
    LIMITS,
    WAIT_S,
    ask,
    metric,
    png,
    reachable,
    refused,
    serve,
    until_ready,
    upload,
)


@pytest.fixture(scope="module")
def url(service: ModuleType, digits_engine: Path) -> Iterator[str]:
    with (
        engines.EnginePool(digits_engine, 2) as pool,
        serve(service.create_app(pool, limits=LIMITS)) as address,
    ):
        until_ready(address)
        yield address


def test_uploads_are_preprocessed_as_the_manifest_says(
    url: str, digits_engine: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = digits[0][:40], digits[1][:40]
    with engines.load(digits_engine) as loaded:
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
    sample = r'# (HELP|TYPE) engine_\w+ .+|engine_\w+(\{\w+="\w+"\})? [0-9.e+-]+'
    assert all(re.fullmatch(sample, line) for line in lines)


def test_a_full_pool_answers_503_and_health_goes_on(
    service: ModuleType, digits_engine: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    picture = png(digits[0][0])
    with (
        engines.EnginePool(digits_engine, 1, max_waiting=1) as pool,
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
    digits_engine: Path,
    digits: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warm_up, may_start = engines.EnginePool.warm_up, threading.Event()

    def late(pool: engines.EnginePool) -> None:
        may_start.wait(WAIT_S)
        warm_up(pool)

    monkeypatch.setattr(engines.EnginePool, "warm_up", late)
    with engines.EnginePool(digits_engine, 1) as pool, serve(service.create_app(pool)) as url:
        end = time.monotonic() + WAIT_S
        while (cold := reachable(url)) is None and time.monotonic() < end:
            time.sleep(0.01)
        early = upload(url, png(digits[0][0]))
        may_start.set()
        until_ready(url)
        assert (cold.status, early.status) == (503, 503)
        assert "warming up" in cold.data["detail"]
        assert upload(url, png(digits[0][0])).status == 200


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


def test_nothing_is_decoded_before_an_engine_is_free(
    service: ModuleType, digits_engine: Path
) -> None:
    with (
        engines.EnginePool(digits_engine, 1, max_waiting=0) as pool,
        serve(service.create_app(pool)) as url,
    ):
        until_ready(url)
        with pool.borrow():
            assert upload(url, b"no image").status == 503
        assert upload(url, b"no image").status == 400


def test_an_engine_that_fails_is_ours_and_not_ready(
    service: ModuleType, digits_engine: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    picture = png(digits[0][0])
    with engines.EnginePool(digits_engine, 1) as pool, serve(service.create_app(pool)) as url:
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
    service: ModuleType, digits_engine: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    pool = engines.EnginePool(digits_engine, 1)
    with serve(service.create_app(pool)) as url:
        until_ready(url)
        pool.close()
        assert upload(url, png(digits[0][0])).status == 503


def test_an_engine_without_preprocessing_is_refused(service: ModuleType, tmp_path: Path) -> None:
    options = engines.BuildOptions(target="cpu", precision="fp32", threads=1)
    engines.build(save(scaled_sum(), tmp_path), tmp_path / "m.engine", options)
    with (
        engines.EnginePool(tmp_path / "m.engine", 1) as pool,
        pytest.raises(EngineError, match=r"inputs \['left', 'right'\].*--preprocess"),
    ):
        service.create_app(pool)
