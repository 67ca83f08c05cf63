"""A real Triton server on the CPU: the one in the ``nvidia-pytriton`` wheel."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ["PYTHON", "Triton", "find_triton", "serve"]

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-triton" / "bin" / "python"
START_S = 90


class Triton(NamedTuple):
    """Where the server of the ``nvidia-pytriton`` wheel lies, and what it needs around it."""

    folder: Path
    stub: Path
    environment: dict[str, str]


def find_triton() -> Triton:
    """The server; skips where the wheel or what it needs is missing."""
    if not PYTHON.is_file():
        pytest.skip(f"no Triton server in {PYTHON.parents[1]}; run: make .venv-triton/.ready")
    site, version, libraries = subprocess.run(
        [
            PYTHON,
            "-c",
            "import sysconfig as s; print(s.get_path('platlib'), s.get_python_version(), "
            "s.get_config_var('LIBDIR'), sep='\\n')",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    folder = Path(site, "pytriton", "tritonserver")
    stub = folder / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        pytest.skip(f"Triton has no Python backend for Python {version}: no {stub}")
    environment = {
        **os.environ,
        "PATH": f"{PYTHON.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LD_LIBRARY_PATH": f"{site}/nvidia_pytriton.libs:{libraries}",
    }
    linked = subprocess.run(
        ["ldd", stub], capture_output=True, text=True, check=True, env=environment
    ).stdout
    if missing := [line.strip() for line in linked.splitlines() if "not found" in line]:
        pytest.skip(f"Triton's Python backend cannot start here: {missing}; install libpython")
    return Triton(folder, stub, environment)


@contextmanager
def serve(
    triton: Triton,
    repository: Path,
    folder: Path,
    *,
    models: Sequence[str] = ("sum", "static", "types", "digits"),
    metrics_port: int | None = None,
) -> Iterator[tuple[int, int]]:
    """The server on free loopback ports, once the models are ready; always stopped."""
    backends = folder / "backends"
    shutil.copytree(triton.folder / "backends", backends)
    shutil.copy(triton.stub, backends / "python")
    ports = free_ports()
    command = [
        triton.folder / "bin" / "tritonserver",
        *("--model-repository", repository),
        *("--backend-directory", backends),
        *("--http-address", "127.0.0.1", "--http-port", str(ports[0])),
        *("--grpc-address", "127.0.0.1", "--grpc-port", str(ports[1])),
        *("--exit-on-error", "false", "--exit-timeout-secs", "5"),
    ]
    if metrics_port is None:
        command += ["--allow-metrics", "false"]
    else:
        command += ["--metrics-address", "127.0.0.1", "--metrics-port", str(metrics_port)]
        command += ["--allow-gpu-metrics", "false"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=triton.environment, stdout=log, stderr=log)
        try:
            wait_until_ready(server, ports[0], models, folder / "log")
            yield ports
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def wait_until_ready(
    server: subprocess.Popen[bytes], port: int, models: Sequence[str], log: Path
) -> None:
    ready = f"http://127.0.0.1:{port}/v2/models/{{}}/ready"
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        if all(answers(ready.format(name)) for name in models):
            return
        time.sleep(0.1)
    raise AssertionError(f"Triton was not ready in {START_S} s:\n{log.read_text()}")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False
