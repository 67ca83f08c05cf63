"""Drift, recorder, shadow and change of the engine in examples/04_fastapi_service, over HTTP."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import engines
from artefacts.errors import InputError
from tests.integration.example_service import (
    DIGITS,
    PROGRAM,
    WAIT_S,
    Answer,
    ask,
    metric,
    png,
    refused,
    serve,
    until_ready,
    upload,
)
from tests.integration.test_engines_replace import line

TOKEN = "a-token-of-more-than-16-letters"


@pytest.fixture
def folder(digits_engine: Path, tmp_path: Path) -> Path:
    """A folder of engines: as served, the same again in FP32, and one of other inputs."""
    for suffix in ("", ".json"):
        shutil.copy(f"{digits_engine}{suffix}", tmp_path / f"old.engine{suffix}")
    passport = engines.read_manifest(digits_engine).passport
    options = engines.BuildOptions(target="cpu", precision="fp32", threads=1)
    engines.build(DIGITS / "digits.onnx", tmp_path / "new.engine", options, passport)
    line(tmp_path, "line", 1.0, inputs=passport.inputs)
    return tmp_path


@pytest.fixture
def url(service: ModuleType, folder: Path) -> Iterator[str]:
    with engines.EnginePool(folder / "old.engine", 2, drift=True) as pool:
        admin = service.Admin(pool, folder / "old.engine", TOKEN)
        with serve(service.create_app(pool, admin=admin)) as address:
            until_ready(address)
            yield address


def send(url: str, path: str, body: object = None, method: str | None = "POST") -> Answer:
    data = None if body is None else json.dumps(body).encode()
    return ask(f"{url}/admin/{path}", data, "application/json", method=method, token=TOKEN)


def sha256(path: Path) -> str:
    return engines.read_manifest(path).engine_sha256


def until(url: str, done: Callable[[Any], bool]) -> Any:
    end = time.monotonic() + WAIT_S
    while not done(found := send(url, "shadow", method="GET").data):
        assert time.monotonic() < end, found
        time.sleep(0.01)
    return found


def test_without_a_token_nobody_changes_anything(
    service: ModuleType, digits_engine: Path, url: str
) -> None:
    with (
        engines.EnginePool(digits_engine, 1) as pool,
        serve(service.create_app(pool)) as closed,
    ):
        until_ready(closed)
        for path in ("replace", "back", "shadow"):
            assert send(closed, path, {"engine": "new.engine"}).status == 404
    for token in (None, "", TOKEN[:-1], f"{TOKEN}x"):
        answer = ask(f"{url}/admin/back", b"{}", "application/json", token=token)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "expected 'Authorization: Bearer …'" in answer.data["detail"]


def test_the_engine_changes_and_goes_back(
    url: str, folder: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    picture = png(digits[0][0])
    old = upload(url, picture).data["scores"]
    answer = send(url, "replace", {"engine": "new.engine"})
    assert answer.status == 200
    assert answer.data == {
        "engine": "new.engine",
        "sha256": sha256(folder / "new.engine"),
        "before": "old.engine",
    }
    assert f'engine_info{{sha256="{answer.data["sha256"]}"}} 1' in ask(f"{url}/metrics").text
    new = upload(url, picture).data["scores"]
    assert new != old
    assert send(url, "back").data["engine"] == "old.engine"
    assert upload(url, picture).data["scores"] == old
    assert send(url, "back").data["engine"] == "new.engine"
    assert upload(url, picture).data["scores"] == new


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("line.engine", 409, "has inputs x float32 [?, 16], expected image float32"),
        ("none.engine", 409, "does not exist"),
        ("old.engine.json", 409, "old.engine.json"),
        ("../old.engine", 400, "expected the name of a file beside the engine"),
        ("/etc/passwd", 400, "'/etc/passwd'"),
        ("..", 409, ".."),
        ("", 400, "''"),
        ("a\nb", 400, "without a folder"),
    ],
)
def test_what_cannot_take_its_place_is_refused_and_the_old_one_goes_on(
    url: str, folder: Path, digits: tuple[np.ndarray, np.ndarray], name: str, status: int, said: str
) -> None:
    for path in ("replace", "shadow"):
        answer = send(url, path, {"engine": name})
        assert answer.status == status, answer.text
        assert said in answer.data["detail"]
    assert send(url, "shadow", method="GET").status == 404
    assert (
        f'engine_info{{sha256="{sha256(folder / "old.engine")}"}} 1' in ask(f"{url}/metrics").text
    )
    assert upload(url, png(digits[0][0])).status == 200
    assert refused(url, "bad_image") == refused(url, "engine") == 0


def test_a_damaged_engine_is_refused(url: str, folder: Path) -> None:
    path = folder / "new.engine"
    path.write_bytes(path.read_bytes()[:-1])
    answer = send(url, "replace", {"engine": "new.engine"})
    assert answer.status == 409
    assert "bytes, expected" in answer.data["detail"]


def test_there_is_nothing_to_go_back_to_before_a_change_or_after_a_rebuild(
    url: str, folder: Path
) -> None:
    answer = send(url, "back")
    assert answer.status == 400
    assert "has not changed its engine" in answer.data["detail"]
    assert send(url, "replace", {"engine": "new.engine"}).status == 200
    was = sha256(folder / "old.engine")
    for suffix in ("", ".json"):
        shutil.copy(folder / f"new.engine{suffix}", folder / f"old.engine{suffix}")
    answer = send(url, "back")
    assert answer.status == 409
    assert f"expected {was} as when it answered" in answer.data["detail"]


def test_a_shadow_is_compared_on_real_uploads(
    url: str, folder: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    assert send(url, "shadow", {"engine": "new.engine", "share": 2}).status == 400
    assert send(url, "shadow", {"engine": "new.engine", "share": 1}).status == 200
    for number, image in enumerate(digits[0][:30], 1):
        assert upload(url, png(image)).status == 200
        until(url, lambda found, number=number: found["compared"] == number)
    found = send(url, "shadow", method="GET").data
    (output,) = found["outputs"]
    assert output["name"] == "logits"
    assert output["same"] >= 0.9
    assert 15 < output["sqnr_db"] < 100
    assert found["sha256"] == sha256(folder / "new.engine")
    assert metric(url, 'shadow_same{output="logits"}') == output["same"]
    assert metric(url, "shadow_compared_total") == 30
    assert metric(url, 'shadow_seconds{engine="shadow",quantile="0.5"}') > 0
    ended = send(url, "shadow", method="DELETE")
    assert (ended.status, ended.data["compared"]) == (200, 30)
    assert send(url, "shadow", method="GET").status == 404
    assert "shadow" not in ask(f"{url}/metrics").text


def test_drift_is_among_the_metrics(url: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
    assert metric(url, 'drift_requests{input="image"}') == 0
    for image in digits[0][:50]:
        upload(url, png(image))
    assert metric(url, 'drift_verdict{input="image",verdict="usual"}') == 1
    before = metric(url, 'drift_distance{input="image",distance="psi"}')
    for image in digits[0][:50]:
        upload(url, png(255 - image))
    assert metric(url, 'drift_verdict{input="image",verdict="moved"}') == 1
    limit = metric(url, 'drift_limit{input="image",distance="psi"}')
    assert before <= limit < metric(url, 'drift_distance{input="image",distance="psi"}')
    for distance in ("saturation", "ks", "step_psi", "colour_ks"):
        assert metric(url, f'drift_distance{{input="image",distance="{distance}"}}') >= 0


@pytest.mark.parametrize("text", ["", "short", "a token\nof two lines", "schlüssel-von-irgendwem"])
def test_a_token_that_is_no_secret_is_refused(
    service: ModuleType, tmp_path: Path, text: str
) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(InputError, match=r"token .* expected at least 16 printable"):
        service.read_token(tmp_path / "token")


@pytest.mark.parametrize("kind", ["foreign", "unwritable", "taken"])
def test_a_recorders_folder_that_cannot_be_used_ends_the_command_with_a_sentence(
    digits_engine: Path, tmp_path: Path, kind: str
) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    said = {"foreign": "holds 1 other files (cat.jpg", "taken": "in use by another recorder"}
    command = [sys.executable, PROGRAM, "--engine", digits_engine, "--record", samples]
    with engines.Recorder(samples) as other:
        if kind == "taken":
            engines.load(digits_engine, record=other).close()
        elif kind == "foreign":
            (samples / "cat.jpg").write_bytes(b"")
        else:
            samples.rmdir()
            samples.write_bytes(b"")
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: recorder's folder {samples} ")
    assert said.get(kind, "is a file, expected a folder") in done.stderr
    assert "Traceback" not in done.stderr
