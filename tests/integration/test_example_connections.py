"""Connections of examples/04_fastapi_service, and the command that serves it."""

from __future__ import annotations

import resource
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import engines
from tests.integration.example_service import (
    PROGRAM,
    WAIT_S,
    ask,
    free_port,
    png,
    serve,
    until_ready,
    upload,
)


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
    service: ModuleType, digits_engine: Path
) -> None:
    class Narrow(service.HastyProtocol):
        most = 4

    with (
        engines.EnginePool(digits_engine, 1) as pool,
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
    service: ModuleType, digits_engine: Path, sent: bytes
) -> None:
    class Hasty(service.HastyProtocol):
        arrives_within_s = 0.05

    with (
        engines.EnginePool(digits_engine, 1) as pool,
        serve(service.create_app(pool), Hasty) as url,
    ):
        until_ready(url)
        assert ended(stalled(url, sent))


def test_the_command_of_the_readme_serves_until_it_is_told_to_stop(
    digits_engine: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, PROGRAM, "--engine", digits_engine, "--port", str(port)]
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


def test_a_burst_of_connections_takes_no_descriptor_that_is_needed(digits_engine: Path) -> None:
    """They come while the service does not look: all are there at once when it does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, PROGRAM, "--engine", digits_engine, "--port", str(port)]
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


def test_the_command_explains_a_damaged_engine(digits_engine: Path, tmp_path: Path) -> None:
    copy = tmp_path / "cut.engine"
    copy.write_bytes(digits_engine.read_bytes()[:-1])
    copy.with_name("cut.engine.json").write_bytes(Path(f"{digits_engine}.json").read_bytes())
    command = [sys.executable, PROGRAM, "--engine", copy]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: engine {copy} has")


def test_int8_serve_is_the_same_program(
    digits_engine: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "int8", "serve", "--engine", digits_engine]
    command += ["--port", str(port)]
    root = PROGRAM.parents[2]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) as server:
        try:
            until_ready(f"http://127.0.0.1:{port}")
            assert upload(f"http://127.0.0.1:{port}", png(digits[0][0])).status == 200
        finally:
            server.send_signal(signal.SIGTERM)
            log = server.communicate(timeout=WAIT_S)[1]
    assert "Traceback" not in log
