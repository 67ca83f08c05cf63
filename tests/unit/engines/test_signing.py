"""Signed engines: who made them is known before anything is deserialised."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from artefacts.errors import EngineError, InputError
from engines import Manifest, Passport, TensorSpec, add_measured, load, read_manifest, sign
from engines.__main__ import main
from engines.manifest import manifest_path
from engines.serving.signing import check_signature, signature_path
from engines.serving.triton import export_triton

DATA = b"what OpenVINO exported"
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


def write_keys(folder: Path, key: Any, password: bytes | None = None) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True, parents=True)
    encryption: Any = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    pem = serialization.Encoding.PEM
    private, public = folder / "key.pem", folder / "pub.pem"
    private.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, encryption)
    )
    public.write_bytes(
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path / "keys", ec.generate_private_key(CURVES["P-256"]))


def write_engine(folder: Path, data: bytes = DATA, name: str = "model.engine") -> Path:
    digest = hashlib.sha256(data).hexdigest()
    made = Manifest(
        engine_sha256=digest,
        engine_bytes=len(data),
        target="cpu",
        precision="int8",
        onnx={"name": "model.onnx", "sha256": digest, "external": {}},
        library={"name": "openvino", "version": "none that exists"},
        device={"name": "a CPU"},
        inputs=(TensorSpec(name="x", dtype="float32", shape=(None, 3)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(None, 1)),),
        profiles=(),
        options={},
        build={},
        coverage=None,
        passport=Passport(),
    )
    path = folder / name
    path.write_bytes(data)
    manifest_path(path).write_bytes(made.to_bytes())
    return path


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_engine(tmp_path)


def is_trusted(engine: Path, public: Path) -> bool:
    """What ``load`` says of the signature: past it, this engine fails for its library's version."""
    with pytest.raises(EngineError) as caught:
        load(engine, trusted_key=public)
    return "none that exists" in str(caught.value)


@pytest.mark.parametrize("curve", CURVES)
def test_what_the_key_signed_is_trusted(tmp_path: Path, engine: Path, curve: str) -> None:
    private, public = write_keys(tmp_path / "own", ec.generate_private_key(CURVES[curve]))
    assert sign(engine, private) == signature_path(engine) == tmp_path / "model.engine.sig"
    assert is_trusted(engine, public)


def test_an_unsigned_engine_is_refused(engine: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(EngineError, match=r"has no signature model\.engine\.sig beside it"):
        load(engine, trusted_key=keys[1])


def test_another_key_is_refused(engine: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    sign(engine, write_keys(tmp_path / "other", ec.generate_private_key(ec.SECP256R1()))[0])
    with pytest.raises(EngineError, match=r"not what the key of .*pub\.pem signed \(Key mismatch"):
        load(engine, trusted_key=keys[1])


def test_a_claimed_key_does_not_help(engine: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """Who signs with another key may write any hint into the bundle."""
    sign(engine, keys[0])
    hint = json.loads(signature_path(engine).read_text())["verificationMaterial"]
    sign(engine, write_keys(tmp_path / "others", ec.generate_private_key(ec.SECP256R1()))[0])
    forged = json.loads(signature_path(engine).read_text()) | {"verificationMaterial": hint}
    signature_path(engine).write_text(json.dumps(forged))
    with pytest.raises(EngineError, match="InvalidSignature"):
        load(engine, trusted_key=keys[1])


def test_another_engine_with_a_fitting_manifest_is_refused(
    engine: Path, keys: tuple[Path, Path]
) -> None:
    sign(engine, keys[0])
    write_engine(engine.parent, DATA[::-1])
    with pytest.raises(EngineError, match=r"signed \(Signature mismatch\)"):
        load(engine, trusted_key=keys[1])


def test_a_manifest_written_anew_is_refused(engine: Path, keys: tuple[Path, Path]) -> None:
    sign(engine, keys[0])
    add_measured(engine, accuracy={"top1": 1.0})
    with pytest.raises(EngineError, match=r"signed \(Signature mismatch\)"):
        load(engine, trusted_key=keys[1])
    sign(engine, keys[0])
    assert is_trusted(engine, keys[1])


def test_the_signature_of_another_engine_is_refused(engine: Path, keys: tuple[Path, Path]) -> None:
    sign(engine, keys[0])
    other = write_engine(engine.parent, b"another", "other.engine")
    shutil.copy(signature_path(engine), signature_path(other))
    assert not is_trusted(other, keys[1])


@given(where=st.integers(0, 10**9), bit=st.integers(0, 7))
@settings(max_examples=150)
def test_a_flipped_bit_of_the_signature_never_lets_another_engine_in(
    tmp_path_factory: pytest.TempPathFactory, where: int, bit: int
) -> None:
    """A flip may hit what the signature does not need; then engine and manifest are right."""
    folder = tmp_path_factory.getbasetemp() / "flips"
    path = folder / "model.engine"
    if not folder.exists():
        folder.mkdir()
        private, _ = write_keys(folder, ec.generate_private_key(ec.SECP256R1()))
        sign(write_engine(folder), private)
        shutil.copy(signature_path(path), folder / "right.sig")
    raw = bytearray((folder / "right.sig").read_bytes())
    raw[where % len(raw)] ^= 1 << bit
    signature_path(path).write_bytes(raw)
    try:
        check_signature(path, read_manifest(path), folder / "pub.pem")
    except EngineError:
        return
    parsed, right = json.loads(raw), json.loads((folder / "right.sig").read_text())
    assert parsed["dsseEnvelope"]["payload"] == right["dsseEnvelope"]["payload"]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '"x"', "[" * 100_000, '{"verificationMaterial": {}}', "\x00"]
)
def test_what_is_no_signature(engine: Path, keys: tuple[Path, Path], text: str) -> None:
    signature_path(engine).write_text(text)
    assert not is_trusted(engine, keys[1])


def test_a_signature_has_a_size_limit(engine: Path, keys: tuple[Path, Path]) -> None:
    signature_path(engine).write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(InputError, match="has 1048577 bytes, expected at most 1048576"):
        load(engine, trusted_key=keys[1])


def test_keys_that_cannot_sign(engine: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    locked = write_keys(tmp_path / "a", ec.generate_private_key(ec.SECP256R1()), b"word")[0]
    curve = write_keys(tmp_path / "b", ec.generate_private_key(ec.SECP256K1()))[0]
    other = write_keys(tmp_path / "c", rsa.generate_private_key(65537, 2048))[0]
    for wrong, found in ((locked, "encrypted"), (curve, "secp256k1"), (other, "curve")):
        with pytest.raises(InputError, match=f"private key .* cannot be used .*{found}"):
            sign(engine, wrong)
    with pytest.raises(InputError, match=r"private key .* does not exist"):
        sign(engine, tmp_path / "none.pem")
    sign(engine, keys[0])
    with pytest.raises(InputError, match=r"public key .* cannot be used"):
        load(engine, trusted_key=keys[0])


def test_a_damaged_engine_is_not_signed(engine: Path, keys: tuple[Path, Path]) -> None:
    engine.write_bytes(DATA[:-1])
    with pytest.raises(EngineError, match="has 21 bytes, expected 22"):
        sign(engine, keys[0])
    assert not signature_path(engine).exists()


def test_an_exported_or_renamed_engine_keeps_its_signature(
    engine: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    sign(engine, keys[0])
    version = export_triton(engine, tmp_path / "repository", name="served")
    assert is_trusted(version / "model.engine", keys[1])


def test_the_openssf_tool_agrees(engine: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    sign(engine, keys[0])
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (engine, manifest_path(engine)):
        shutil.copy(path, folder)
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    command += ["--signature", str(signature_path(engine)), "--public_key", str(keys[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, "succeeded" in done.stdout) == (0, True), done.stderr
    (folder / "model.engine").write_bytes(DATA[::-1])
    assert subprocess.run(command, capture_output=True, check=False, timeout=120).returncode != 0


def test_commands(
    engine: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sign", str(engine), "--key", str(keys[0])]) == 0
    assert str(signature_path(engine)) in capsys.readouterr().out
    main(["verify", str(engine), "--trusted-key", str(keys[1])])
    assert f"signed by the key of {keys[1]}" in capsys.readouterr().out
    assert main(["sign", str(engine), "--key", str(keys[1])]) == 2
    assert capsys.readouterr().err.startswith(f"error: private key {keys[1]} cannot be used")
