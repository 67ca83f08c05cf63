"""Damaged, altered and foreign engine files: refused before a runtime sees them."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engines
from artefacts.errors import BuilderError, EngineError, UnsupportedError
from artefacts.files import sha256_bytes
from engines import BuildOptions
from engines.__main__ import main
from engines.manifest import manifest_path, read_manifest
from engines.openvino.engine_files import load_bytes
from engines.openvino.runner import OpenvinoRunner
from tests.engine_models import convnet, save


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("master")
    model = save(convnet(np.random.default_rng()), folder)
    engines.build(model, folder / "m.engine", BuildOptions(target="cpu", precision="int8"))
    return folder / "m.engine"


@pytest.fixture
def engine(master: Path, tmp_path: Path) -> Path:
    for path in (master, manifest_path(master)):
        shutil.copy(path, tmp_path)
    return tmp_path / master.name


@pytest.fixture
def runtime_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the runtime was given bytes that should have been refused")

    monkeypatch.setattr(OpenvinoRunner, "load", refuse)


def change(path: Path, **changes: Any) -> None:
    """Rewrite a manifest as a builder of other circumstances would have."""
    manifest_path(path).write_bytes(replace(read_manifest(path), **changes).to_bytes())


Damage = Callable[[bytes], bytes]
DAMAGE: dict[str, Damage] = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"\0",
    "first bit": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "last bit": lambda data: data[:-1] + bytes([data[-1] ^ 128]),
    "foreign": lambda data: b"ptrt" + bytes(len(data) - 4),
}


@pytest.mark.usefixtures("runtime_sees_nothing")
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_engines(engine: Path, damage: Damage) -> None:
    engine.write_bytes(damage(engine.read_bytes()))
    with pytest.raises(EngineError, match=r"engine .*m\.engine has .*build it again"):
        engines.load(engine)


@pytest.mark.usefixtures("runtime_sees_nothing")
def test_flipped_bits_of_engine_and_manifest(engine: Path, rng: np.random.Generator) -> None:
    for path in (engine, manifest_path(engine)):
        raw = path.read_bytes()
        for position in rng.integers(0, len(raw) * 8, 60):
            flipped = bytearray(raw)
            flipped[position // 8] ^= 1 << (position % 8)
            path.write_bytes(flipped)
            with pytest.raises(EngineError):
                engines.load(engine)
        path.write_bytes(raw)


def test_every_other_file_is_no_engine(engine: Path) -> None:
    missing = engine.with_name("none.engine")
    with pytest.raises(EngineError, match=r"none\.engine does not exist"):
        engines.load(missing)
    with pytest.raises(EngineError, match="does not exist, expected a file"):
        engines.load(engine.parent)


def test_a_manifest_alone_or_an_engine_alone(engine: Path) -> None:
    beside = manifest_path(engine)
    kept = beside.read_bytes()
    beside.unlink()
    with pytest.raises(EngineError, match=r"no manifest m\.engine\.json beside it"):
        engines.load(engine)
    beside.write_bytes(kept)
    engine.unlink()
    with pytest.raises(EngineError, match="does not exist"):
        engines.load(engine)


def test_a_manifest_of_another_engine(engine: Path) -> None:
    change(engine, engine_sha256="0" * 64)
    with pytest.raises(EngineError, match="expected 000000000000… as its manifest says"):
        engines.load(engine)


@pytest.mark.usefixtures("runtime_sees_nothing")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"library": {"name": "openvino", "version": "2020.1"}},
            r"built with openvino 2020\.1, found 20.*, expected the same; build it again here: "
            r"python build_engine\.py --onnx model\.onnx .*--precision int8 --target cpu",
        ),
        ({"device": {"name": "x", "architecture": "arm64"}}, "architecture arm64, found"),
    ],
)
def test_other_versions_and_devices(engine: Path, changes: dict[str, Any], said: str) -> None:
    change(engine, **changes)
    with pytest.raises(EngineError, match=said):
        engines.load(engine)


@pytest.mark.parametrize("fact", ["capabilities", "requirements"])
def test_another_cpu(engine: Path, fact: str) -> None:
    device = dict(read_manifest(engine).device)
    device[fact] = ["FP32"] if fact == "capabilities" else "meta=1.0;isa=other"
    change(engine, device=device)
    with pytest.raises(EngineError, match=f"CPU with {fact}"):
        engines.load(engine)


def test_an_engine_of_another_target(engine: Path) -> None:
    change(engine, target="tensorrt-rtx", library={"name": "tensorrt_rtx", "version": "0"})
    with pytest.raises(EngineError, match="built with tensorrt_rtx 0, found"):
        engines.load(engine)


def test_bytes_that_the_runtime_refuses_are_an_engine_error(engine: Path) -> None:
    """A manifest that fits, as only its author can write: the runtime has the last word."""
    data = bytes(500)
    engine.write_bytes(data)
    change(engine, engine_bytes=500, engine_sha256=sha256_bytes(data))
    with pytest.raises(EngineError, match="engine is refused by OpenVINO"):
        engines.load(engine)


def test_links_and_dots_lead_where_they_say(engine: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    link = away / "link.engine"
    link.symlink_to(engine)
    with pytest.raises(EngineError, match=r"no manifest link\.engine\.json beside it"):
        engines.load(link)
    manifest_path(link).symlink_to(manifest_path(engine))
    engines.load(link).close()
    engines.load(away / ".." / "m.engine").close()
    engine.unlink()
    with pytest.raises(EngineError, match="does not exist"):
        engines.load(link)


def test_building_over_a_link_leaves_its_target_alone(master: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    link = tmp_path / "m.engine"
    link.symlink_to(precious)
    engines.build(master.with_name("model.onnx"), link, BuildOptions(target="cpu"))
    assert precious.read_text() == "mine"
    assert not link.is_symlink()
    engines.load(link).close()


def test_an_engine_can_be_renamed_with_its_manifest(engine: Path) -> None:
    moved = engine.rename(engine.with_name("other.engine"))
    manifest_path(engine).rename(manifest_path(moved))
    engines.load(moved).close()


def test_verify_and_inspect(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(engine)]) == 0
    assert "fits this machine" in capsys.readouterr().out
    assert main(["inspect", str(engine)]) == 0
    shown = capsys.readouterr().out
    assert "cpu, int8" in shown
    assert "2 of 3 layers, 54.3% of multiply-accumulates (OpenVINO executed graph)" in shown
    assert main(["inspect", "--json", str(engine)]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == "cpu"


def test_commands_print_one_line_and_exit_2(
    engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.write_bytes(b"")
    assert main(["verify", str(engine)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: engine ")
    assert shown.err.count("\n") == 1


def test_inspect_prints_no_control_characters(
    engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(engine, device={"name": "\x1b[31mred"})
    assert main(["inspect", str(engine)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_errors_of_loading_are_all_for_the_user(engine: Path) -> None:
    for error in (EngineError, UnsupportedError):
        assert issubclass(error, BuilderError)
        assert error.exit_code == 2


def test_an_archive_that_grows_when_it_is_read_is_refused() -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.xml", "<net/>" * 1000)
        archive.writestr("model.bin", b"\0" * 1000)
    with pytest.raises(EngineError, match=r"model\.xml is compressed"):
        load_bytes(raw.getvalue(), {})
