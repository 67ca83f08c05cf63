"""What is signed beside the bytes: name, version, last day; and what was revoked."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from artefacts.errors import EngineError, InputError
from engines import Expected, Passport, Release, load, read_manifest, sign
from engines.__main__ import main
from engines.manifest import Manifest, manifest_path, read_verified
from engines.serving.signing import signature_path, trust_by
from engines.serving.triton import export_triton
from tests.unit.engines.test_signing import CURVES, write_engine, write_keys

EARLY = date(2026, 1, 1)
RELEASE = Release(name="person", version="3", expires=date(2030, 1, 31))


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path / "keys", ec.generate_private_key(CURVES["P-256"]))


@pytest.fixture
def engine(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    path = write_engine(tmp_path)
    sign(path, keys[0], release=RELEASE)
    return path


def test_the_release_is_what_is_signed(engine: Path, keys: tuple[Path, Path]) -> None:
    manifest = read_manifest(engine)
    assert Release.of(manifest) == RELEASE
    read_verified(engine, trust_by(engine, keys[1]))
    assert [p.name for p in sorted(engine.parent.glob("*.engine*"))] == [
        "model.engine",
        "model.engine.json",
        "model.engine.sig",
    ]


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (Expected(name="person", version="3", today=date(2030, 1, 31)), None),
        (Expected(today=EARLY), None),
        (
            Expected(name="face", today=date(2026, 1, 1)),
            "signed with name 'person', expected 'face'",
        ),
        (Expected(version="4", today=date(2026, 1, 1)), "signed with version '3', expected '4'"),
        (Expected(today=date(2030, 2, 1)), r"expired on 2030-01-31 \(today is 2030-02-01\)"),
    ],
)
def test_another_model_or_one_that_expired(
    engine: Path, expected: Expected, said: str | None
) -> None:
    manifest = read_manifest(engine)
    if said is None:
        expected.check(engine, manifest)
    else:
        with pytest.raises(EngineError, match=said):
            expected.check(engine, manifest)


def test_without_a_release_any_name_is_wrong(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    path = write_engine(tmp_path)
    sign(path, keys[0])
    Expected().check(path, read_manifest(path))
    with pytest.raises(EngineError, match="signed with name None, expected 'person'"):
        Expected(name="person").check(path, read_manifest(path))


def test_revoked_engines(engine: Path, tmp_path: Path) -> None:
    manifest, revoked = read_manifest(engine), tmp_path / "revoked.txt"
    revoked.write_text(f"# of March\n\n{'0' * 64}\n")
    Expected(revoked=revoked).check(engine, manifest)
    revoked.write_text(f"{manifest.engine_sha256}  # leaked\n")
    with pytest.raises(EngineError, match=r"was revoked \(sha256 [0-9a-f]{64} is in "):
        Expected(revoked=revoked).check(engine, manifest)
    revoked.write_text("all of them\n")
    with pytest.raises(InputError, match="has the line 'all of them', expected a SHA-256"):
        Expected(revoked=revoked).check(engine, manifest)


def test_load_checks_name_and_day_before_anything_runs(
    engine: Path, keys: tuple[Path, Path]
) -> None:
    with pytest.raises(EngineError, match="signed with name 'person', expected 'face'"):
        load(engine, trusted_key=keys[1], expected=Expected(name="face"))
    sign(engine, keys[0], release=Release(name="person", expires=date(2020, 1, 1)))
    with pytest.raises(EngineError, match="expired on 2020-01-01"):
        load(engine, trusted_key=keys[1])


def test_a_manifest_that_nobody_signed_is_not_even_validated(
    engine: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(data: object, what: str) -> None:
        raise AssertionError("validated before the signature was checked")

    other = write_engine(engine.parent, data=b"another", name="other.engine")
    signature_path(other).write_bytes(signature_path(engine).read_bytes())
    monkeypatch.setattr("engines.manifest._check_schema", never)
    with pytest.raises(EngineError, match="is not what the key of"):
        read_verified(other, trust_by(other, keys[1]))


def test_the_commands(
    engine: Path, keys: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, public = map(str, keys)
    assert main(["sign", str(engine), "--key", key, "--expires", "2030-01-01"]) == 2
    assert "--expires without --name" in capsys.readouterr().err
    told = ["--name", "face", "--model-version", "7", "--expires", "2999-12-31"]
    assert main(["sign", str(engine), "--key", key, *told]) == 0
    assert Release.of(read_manifest(engine)) == Release(
        name="face", version="7", expires=date(2999, 12, 31)
    )
    assert main(["verify", str(engine), "--trusted-key", public, "--name", "person"]) == 2
    assert "signed with name 'face', expected 'person'" in capsys.readouterr().err


@pytest.mark.parametrize("release", [7, {}, {"name": 3}, RELEASE.to_json() | {"expires": "z"}])
def test_malformed_releases(engine: Path, release: object) -> None:
    manifest = read_manifest(engine)
    changed = Manifest(**(vars(manifest) | {"passport": Passport.from_json({"release": release})}))
    with pytest.raises(EngineError, match="manifest has the release"):
        Expected().check(engine, changed)


def test_export_to_triton_checks_the_signature_and_hands_the_key_on(
    engine: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    version = export_triton(engine, tmp_path / "repo", trusted_key=keys[1])
    config = (version.parent / "config.pbtxt").read_text()
    assert f'parameters {{ key: "trusted_key" value {{ string_value: "{keys[1]}" }} }}' in config
    assert "trusted_key" not in (
        (export_triton(engine, tmp_path / "plain").parent / "config.pbtxt").read_text()
    )
    signature_path(engine).unlink()
    with pytest.raises(EngineError, match="has no signature"):
        export_triton(engine, tmp_path / "repo2", trusted_key=keys[1])
    assert not (tmp_path / "repo2").exists()
    assert manifest_path(engine).exists()
