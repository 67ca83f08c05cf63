"""The FastAPI example for its tests: served in this process, or as its own, and asked over HTTP."""

from __future__ import annotations

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
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvicorn
from PIL import Image

from calibrators import ImageLimits

__all__ = [
    "DIGITS",
    "EXAMPLES",
    "LIMIT",
    "LIMITS",
    "PROGRAM",
    "WAIT_S",
    "Answer",
    "ask",
    "free_port",
    "metric",
    "png",
    "reachable",
    "refused",
    "running",
    "serve",
    "until_ready",
    "upload",
]

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


def ask(
    url: str,
    data: bytes | None = None,
    content_type: str = "",
    *,
    method: str | None = None,
    token: str | None = None,
) -> Answer:
    headers = {"Content-Type": content_type} if data else {}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, data, headers, method=method)
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
    return float(re.search(rf"^engine_{re.escape(name)} (\S+)$", text, re.M)[1])


def reachable(url: str) -> Answer | None:
    try:
        return ask(f"{url}/health")
    except (urllib.error.URLError, ConnectionError):
        return None


def refused(url: str, reason: str) -> int:
    text = ask(f"{url}/metrics").text
    return int(re.search(rf'^engine_refused_total{{reason="{reason}"}} (\d+)$', text, re.M)[1])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(engine: Path, *flags: object, **settings: Any) -> Iterator[tuple[str, list[str]]]:
    """The example as a process of its own, ready; its log is there once it has ended."""
    port, log = free_port(), []
    command = [sys.executable, PROGRAM, "--engine", engine, "--port", port, *flags]
    words = [str(word) for word in command]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, **settings) as server:
        try:
            until_ready(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}", log
        finally:
            server.send_signal(signal.SIGTERM)
            log.append(server.communicate(timeout=WAIT_S)[1])
