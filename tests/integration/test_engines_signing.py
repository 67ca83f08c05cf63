"""A signed engine, from the command that builds it to the pool that serves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import build_engine
import engines
from artefacts.errors import EngineError
from engines.manifest import manifest_path
from engines.serving.signing import signature_path

DIGITS = Path(__file__).parents[2] / "examples" / "01_digits"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``m.engine`` built with ``--sign key.pem``; ``pub.pem`` beside both."""
    folder = tmp_path_factory.mktemp("signed")
    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "pub.pem").write_bytes(
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    arguments = ["--onnx", DIGITS / "digits.onnx", "--engine", folder / "m.engine"]
    arguments += ["--target", "cpu", "--precision", "fp32", "--eval-data", DIGITS / "test.npz"]
    arguments += ["--preprocess", DIGITS / "preprocess.yaml", "--sign", folder / "key.pem"]
    assert build_engine.main([str(argument) for argument in arguments]) == 0
    return folder / "m.engine"


def test_the_signature_covers_what_was_measured_and_the_pool_trusts_it(built: Path) -> None:
    assert "accuracy" in engines.read_manifest(built).measured
    with engines.EnginePool(built, 2, trusted_key=built.with_name("pub.pem")) as pool:
        assert pool({"image": np.zeros((1, 1, 32, 32), np.float32)})["logits"].shape == (1, 10)


def test_an_altered_engine_never_reaches_the_runtime(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Altered by somebody who knows the format: hash and digest of the manifest fit."""
    other = tmp_path / "m.engine"
    options = engines.BuildOptions(target="cpu", precision="fp32", threads=1)
    engines.build(
        DIGITS / "digits.onnx", other, options, engines.Passport(labels=("not what you signed",))
    )
    signature_path(other).write_bytes(signature_path(built).read_bytes())
    engines.load(other).close()
    monkeypatch.setattr(
        "engines.openvino.runner.load_bytes", lambda *_: pytest.fail("deserialised")
    )
    with pytest.raises(EngineError, match=r"not what the key of .* signed"):
        engines.load(other, trusted_key=built.with_name("pub.pem"))
    for path in (other, manifest_path(other)):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(EngineError):
            engines.load(other, trusted_key=built.with_name("pub.pem"))


def test_a_key_that_is_not_there_is_told_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--onnx", "none.onnx", "--engine", str(tmp_path / "m.engine")]
    assert build_engine.main([*arguments, "--sign", "none.pem"]) == 2
    assert "--sign names the key none.pem, which is no file" in capsys.readouterr().err
