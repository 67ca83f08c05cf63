"""The example service under malformed, slow, huge and expensive requests, with few descriptors."""

from __future__ import annotations

import io
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.soak.commands import COMMANDS, ROOT, run
from tests.soak.figures import Figure

__all__ = ["load_service"]

PROGRAM = ROOT / "examples" / "04_fastapi_service" / "app.py"
DESCRIPTORS = 256
PROBE_S = 2.0
EXPECTED = {"digit": {200, 503}, "expensive": {400, 503}, "grey": {200, 400, 503}}
EXPECTED |= {"malformed": {400, 422, 503}, "huge": {400, 413, 503}}


def load_service(seconds: float, seed: int) -> list[Figure]:
    """Everything at once for a while; then whether a digit is still answered."""
    requests, probes = Figure(attack="requests to the service"), Figure(attack="health probes")
    rest = Figure(attack="the service afterwards")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        code, said = run(COMMANDS["build"].command(out, out), out)
        if code:
            raise RuntimeError(said)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = (out / "log").open("w+")
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "--engine", str(out / "m.engine"), "--port", str(port)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS,) * 2),
            stdout=log,
            stderr=log,
        )
        try:
            while _get(port, "health") != 200:
                time.sleep(0.1)
            peak_mb = _attack(port, process.pid, seconds, seed, requests, probes)
            time.sleep(1)
            answer = _post(port, bodies(np.random.default_rng(seed))["digit"])
            rest.count(*([] if answer == 200 else [f"a digit gets {answer}"]))
        finally:
            with socket.create_connection(("127.0.0.1", port)) as stalled:
                stalled.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                    rest.count()
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    rest.count("SIGTERM not heeded in 20 s")
        log.seek(0)
        traces = log.read().count("Traceback")
        rest.count(*([f"{traces} traces in the log"] if traces else []))
        rest.attack += f" (peak {peak_mb:.0f} MB)"
    return [requests, probes, rest]


def bodies(rng: np.random.Generator) -> dict[str, bytes]:
    """One upload of each kind."""
    digit, grey, scans = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (32, 32), np.uint8)).save(digit, "PNG")
    Image.fromarray(np.zeros((8192, 8192), np.uint16)).save(grey, "PNG", compress_level=1)
    Image.new("L", (4000, 4000)).save(scans, "JPEG", progressive=True)
    raw = scans.getvalue()
    raw = raw[:-2] + raw[raw.rindex(b"\xff\xda") : -2] * 400 + raw[-2:]
    return {
        "digit": digit.getvalue(),
        "grey": grey.getvalue(),
        "expensive": raw,
        "malformed": rng.bytes(2000),
        "huge": zlib.compress(bytes(100)) + bytes(12 << 20),
    }


def _attack(
    port: int, pid: int, seconds: float, seed: int, requests: Figure, probes: Figure
) -> float:
    """The largest memory of the service in MB."""
    stop, lock = threading.Event(), threading.Lock()
    kinds = bodies(np.random.default_rng(seed))

    def send(kind: str) -> None:
        while not stop.is_set():
            answer = _post(port, kinds[kind])
            good = answer in EXPECTED[kind] or answer == 0  # cut off while it was sent
            with lock:
                requests.count(*([] if good else [f"{kind}: {answer}"]))

    def stall() -> None:
        held: list[socket.socket] = []
        while not stop.is_set():
            try:
                held.append(socket.create_connection(("127.0.0.1", port), timeout=1))
                held[-1].sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\n")
            except OSError:
                time.sleep(0.05)
            if len(held) > 400:
                held.pop(0).close()
        for each in held:
            each.close()

    threads = [threading.Thread(target=send, args=(kind,)) for kind in kinds for _ in range(2)]
    threads.append(threading.Thread(target=stall))
    for thread in threads:
        thread.start()
    peak_mb, end_s = 0.0, time.monotonic() + seconds
    while time.monotonic() < end_s:
        answer = _get(port, "health")
        probes.count(*([] if answer == 200 else [f"{answer or 'nothing'} within {PROBE_S:g} s"]))
        peak_mb = max(peak_mb, _peak_mb(pid))
        time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    return peak_mb


def _peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def _get(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=PROBE_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as err:
        return err.code
    except (OSError, ValueError):
        return 0


def _post(port: int, raw: bytes) -> int:
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict",
        head + raw + b"\r\n--edge--\r\n",
        {"Content-Type": "multipart/form-data; boundary=edge"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as err:
        return err.code
    except (OSError, ValueError):
        return 0
