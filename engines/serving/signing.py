"""Signatures of engines: ``model.engine.sig`` beside ``model.engine`` and ``model.engine.json``.

An engine is executable code, and its hash lies in a file that whoever replaces the engine can
write too. A signature says who made both. It is the OpenSSF's: a Sigstore bundle over the
SHA-256 of the two files (https://github.com/ossf/model-signing-spec), made with an elliptic-curve
key of one's own. The files are signed under the names ``model.engine`` and ``model.engine.json``,
whatever they are called, so that they may be renamed together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from artefacts.errors import EngineError, InputError
from artefacts.files import read_bounded, sha256_bytes
from artefacts.groups import folder_lock, replace_group
from artefacts.libraries import require
from engines.manifest import Manifest, Trust, manifest_path, read_verified
from engines.serving.release import Release

__all__ = ["check_signature", "sign", "signature_path", "trust_by"]

EXTRA = "signing"
LIMIT_BYTES = 1 << 20
NEW_KEY = "openssl ecparam -genkey -name prime256v1 -noout -out key.pem"
PUBLIC_KEY = "openssl ec -in key.pem -pubout -out pub.pem"


def signature_path(engine: str | Path) -> Path:
    """``out/model.engine`` → ``out/model.engine.sig``."""
    engine = Path(engine)
    return engine.with_name(f"{engine.name}.sig")


def sign(engine: str | Path, key: str | Path, *, release: Release | None = None) -> Path:
    """Sign an engine and its manifest, as they are now; a later change needs a new signature.

    Args:
        engine: e.g. ``out/model.engine``; verified against its manifest first.
        key: PEM file with the private key, on curve P-256, P-384 or P-521, without password.
        release: name, version and last day, which go into the manifest; None leaves what is there.

    Returns:
        The signature's path.

    Raises:
        EngineError: the engine is damaged or altered.
        InputError: the key cannot be used, or the signature cannot be written.
        MissingLibraryError: the extra ``signing`` is not installed.
    """
    path = signature_path(engine)
    if not path.parent.is_dir():
        read_verified(engine)  # says that there is no engine
    with folder_lock(path.parent):  # until it lies beside what it is of
        manifest, _ = read_verified(engine)
        if release is not None:
            passport = dataclasses.replace(manifest.passport, release=release.to_json())
            manifest = dataclasses.replace(manifest, passport=passport)
        config = require("model_signing.signing", extra=EXTRA).Config()
        _use_key(config.use_elliptic_key_signer, "private", key, NEW_KEY)
        config.set_hashing_config(_Content(manifest.engine_sha256, _digest(manifest)))
        with replace_group(path, manifest_path(engine), group=engine) as (part, beside):
            config.sign(engine, part)
            beside.write_bytes(manifest.to_bytes())
    return path


def check_signature(engine: str | Path, manifest: Manifest, trusted_key: str | Path) -> None:
    """Whether the signature beside an engine is by a key, over this manifest and its engine.

    Args:
        engine: path of the engine; its signature lies beside it.
        manifest: as ``read_verified`` returned it, so the engine's bytes have its hash.
        trusted_key: PEM file with the public key.

    Raises:
        EngineError: there is no signature, it is damaged, by another key, or over other files.
        InputError: the key cannot be used.
        MissingLibraryError: the extra ``signing`` is not installed.
    """
    trust_by(engine, trusted_key)(manifest.engine_sha256, _digest(manifest))


def trust_by(engine: str | Path, trusted_key: str | Path) -> Trust:
    """The check of ``read_verified`` for engines that one key signed; errors as above."""
    return partial(_check, engine, trusted_key)


def _digest(manifest: Manifest) -> str:
    return sha256_bytes(manifest.to_bytes())


def _check(engine: str | Path, trusted_key: str | Path, engine_sha256: str, digest: str) -> None:
    path = signature_path(engine)
    if not path.is_file():
        raise EngineError(
            f"engine {engine} has no signature {path.name} beside it, expected one by the key of "
            f"{trusted_key}; get it from whoever built the engine, or sign it if that is you: "
            f"python -m engines sign {engine} --key key.pem"
        )
    read_bounded(path, limit_bytes=LIMIT_BYTES, what="signature")
    invalid = require("cryptography.exceptions", extra=EXTRA).InvalidSignature
    config = require("model_signing.verifying", extra=EXTRA).Config()
    _use_key(config.use_elliptic_key_verifier, "public", trusted_key, PUBLIC_KEY)
    try:
        config.set_hashing_config(_Content(engine_sha256, digest))
        config.verify(engine, path)
    # A signature is untrusted, and these are what the library raises on damaged ones.
    except (invalid, ValueError, LookupError, TypeError, AttributeError, RecursionError) as err:
        reason = str(err).partition(":")[0] or type(err).__name__
        raise EngineError(
            f"engine {engine} is not what the key of {trusted_key} signed ({reason[:100]}), "
            "expected its signature over engine and manifest as they are; do not load it before "
            "you know why: get all three files again from whoever built it"
        ) from err


class _Content:
    """In place of the library's hashing of a folder: the files that were read and verified.

    Hashing them again would read them again, and they might be others by then.
    """

    def __init__(self, engine_sha256: str, manifest_sha256: str) -> None:
        self.digests = {"model.engine": engine_sha256, "model.engine.json": manifest_sha256}

    def hash(self, model_path: object, *, files_to_hash: object = None) -> Any:
        """Name and SHA-256 of both files, as the library keeps them."""
        signed = require("model_signing.manifest", extra=EXTRA)
        digest = require("model_signing.hashing", extra=EXTRA).hashing.Digest
        how: Mapping[str, object] = {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
        }
        files = signed.SerializationType.from_args(how)
        items = [
            files.new_item(name, digest("sha256", bytes.fromhex(value)))
            for name, value in self.digests.items()
        ]
        return signed.Manifest("model", items, files)

    def add_ignored_paths(self, *, model_path: object, paths: object) -> None:
        """Nothing to ignore: no folder is searched."""


def _use_key(use: Any, kind: str, key: str | Path, remedy: str) -> None:
    read_bounded(key, limit_bytes=LIMIT_BYTES, what=f"{kind} key")
    unsupported = require("cryptography.exceptions", extra=EXTRA).UnsupportedAlgorithm
    try:
        use(**{f"{kind}_key": Path(key)})
    except (unsupported, ValueError, TypeError, AttributeError) as err:
        raise InputError(
            f"{kind} key {key} cannot be used ({str(err)[:100]}), expected a PEM file without "
            f"password and an elliptic curve P-256, P-384 or P-521; make one with: {remedy}"
        ) from err
