"""Engine, manifest and signature while somebody rebuilds the engine."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from artefacts.errors import EngineError
from artefacts.files import sha256_bytes
from artefacts.groups import folder_lock, replace_group
from engines import add_measured
from engines.manifest import manifest_path, read_verified
from engines.serving.signing import signature_path
from tests.unit.engines.test_manifest import manifest


def rebuild(engine: Path, data: bytes) -> None:
    """As ``engines.build`` writes."""
    facts = manifest(engine_sha256=sha256_bytes(data), engine_bytes=len(data))
    names = (engine, manifest_path(engine))
    with replace_group(*names, gone=[signature_path(engine)]) as (part, beside):
        part.write_bytes(data)
        beside.write_bytes(facts.to_bytes())


def test_no_load_is_refused_while_engines_are_rebuilt(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    kinds = [bytes([number]) * (1000 + number) for number in range(8)]
    rebuild(engine, kinds[0])
    stop = threading.Event()

    def builds() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            rebuild(engine, kinds[number % len(kinds)])

    builder = threading.Thread(target=builds)
    builder.start()
    try:
        found = {read_verified(engine)[1] for _ in range(100)}
    finally:
        stop.set()
        builder.join()
    assert found <= set(kinds)


def test_results_never_join_the_manifest_of_another_engine(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    rebuild(engine, b"first")

    def builds() -> None:
        for number in range(60):
            rebuild(engine, bytes([number]) * 99)

    builder = threading.Thread(target=builds)
    builder.start()
    while builder.is_alive():
        add_measured(engine, accuracy={"top1": 0.5})
        read_verified(engine)
    builder.join()
    add_measured(engine, accuracy={"top1": 0.5})
    assert read_verified(engine)[0].measured == {"accuracy": {"top1": 0.5}}


def test_two_builders_leave_a_pair(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"

    def builds(data: bytes) -> None:
        for _ in range(30):
            rebuild(engine, data)

    builders = [threading.Thread(target=builds, args=(bytes([n]) * (n + 1),)) for n in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert read_verified(engine)[1] in {b"\0", b"\1\1", b"\2\2\2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.engine", "m.engine.json"]


def test_a_rebuild_takes_the_signature_of_the_old_engine_away(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    rebuild(engine, b"first")
    signature_path(engine).write_bytes(b"signature of the first")
    rebuild(engine, b"second")
    assert not signature_path(engine).exists()


def test_a_killed_rename_is_finished_by_whoever_loads(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    rebuild(engine, b"old")
    old = manifest_path(engine).read_bytes()
    rebuild(engine, b"new")
    # Killed between the two renames: the engine is new, the manifest is still a part.
    (tmp_path / ".m.engine.json.00.part").write_bytes(manifest_path(engine).read_bytes())
    manifest_path(engine).write_bytes(old)
    with pytest.raises(EngineError, match=r"bytes|sha256"):
        read_verified(engine)
    record = '{"replace": {".m.engine.00.part": "m.engine", ".m.engine.json.00.part": '
    (tmp_path / ".m.engine.group").write_text(record + '"m.engine.json"}, "remove": []}')
    assert read_verified(engine)[1] == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.engine", "m.engine.json"]


def test_a_pair_that_does_not_fit_is_still_refused(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    rebuild(engine, b"one")
    engine.write_bytes(b"two")
    with pytest.raises(EngineError, match="damaged or altered"):
        read_verified(engine)
    with folder_lock(tmp_path), pytest.raises(EngineError, match="damaged or altered"):
        read_verified(engine)
