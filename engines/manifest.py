"""The passport of an engine: ``model.engine.json`` beside ``model.engine``.

Beside it and not inside it: the engine stays a plain plan that trtexec and Triton load. The
file is canonical JSON (sorted keys, fixed indentation) and carries the SHA-256 of its own
content, so that any changed byte is found. A hash finds damage, not malice: who can change an
engine can write a manifest for it. Against that, sign.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from artefacts.documents import parse_json
from artefacts.errors import EngineError, InputError
from artefacts.files import read_bounded, sha256_bytes, write_atomic
from artefacts.groups import finish_group, folder_lock
from artefacts.libraries import require
from artefacts.texts import shortened
from engines.coverage import Int8Coverage
from engines.environment import has_module
from engines.passport import Passport
from engines.tensors import Profile, TensorSpec

__all__ = ["Manifest", "change_manifest", "manifest_path", "read_manifest", "read_verified"]

Trust = Callable[[str, str], None]

VERSION = 1
LIMIT_BYTES = 64 << 20  # labels and the per-node table of a large model stay far below


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What is known of an engine file. Field by field as in ``manifest.schema.json``.

    Attributes:
        engine_sha256: of the engine file.
        engine_bytes: its size.
        target: ``cpu``, ``tensorrt`` or ``tensorrt-rtx``.
        precision: that was asked for; what runs is in ``coverage`` and ``build``.
        onnx: name, sha256 and the hashes of external data files.
        library: name and version that built it, and alone can load it.
        device: the CPU or GPU it was built for.
        inputs: names, dtypes, shapes.
        outputs: the same.
        profiles: ranges of shapes that requests may have.
        options: of the build, TF32 among them.
        build: what the builder did: typing of the network, floating-point type, seconds.
        coverage: which layers run INT8; ``None`` where that cannot be read without a GPU.
        passport: hashes, preprocessing, labels, calibration, as the caller gave it.
        measured: accuracy and latency, added after the build.
        created: UTC.
    """

    engine_sha256: str
    engine_bytes: int
    target: str
    precision: str
    onnx: Mapping[str, Any]
    library: Mapping[str, str]
    device: Mapping[str, Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    options: Mapping[str, Any]
    build: Mapping[str, Any]
    coverage: Int8Coverage | None
    passport: Passport
    measured: Mapping[str, Any] = field(default_factory=dict)
    created: str = field(
        default_factory=lambda: datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    )

    def to_json(self) -> dict[str, Any]:
        """The content of the file, digest included."""
        content = dict(vars(self)) | {
            "manifest": VERSION,
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "profiles": [profile.to_json() for profile in self.profiles],
            "coverage": self.coverage.to_json() if self.coverage else None,
            "passport": self.passport.to_json(),
        }
        return content | {"digest": _digest(content)}

    def to_bytes(self) -> bytes:
        """The file, validated against the schema.

        Raises:
            EngineError: a field does not fit; only the caller's passport or results can do that.
        """
        try:
            # A round trip settles what json changes (tuples, int keys) before hashing.
            data = json.loads(json.dumps(self.to_json(), allow_nan=False))
        except (TypeError, ValueError) as err:
            raise EngineError(
                f"manifest cannot be written ({err}), expected plain JSON values without NaN in "
                "the passport and the results; convert them"
            ) from err
        data["digest"] = _digest(data)
        _check_schema(data, "manifest to be written")
        return _canonical(data)

    @classmethod
    def from_bytes(cls, raw: bytes, what: str = "manifest", trust: Trust | None = None) -> Manifest:
        """Read and check a manifest; ``what`` names it in errors.

        Args:
            raw: the file.
            what: names it in errors.
            trust: called with the engine's SHA-256 that it names and the manifest's own, before
                anything else is made of it; raises where nobody signed these.

        Raises:
            EngineError: not JSON, of a newer schema, not valid, or altered.
        """
        data = _parse(raw, what)
        if "digest" in data and not _is_as_written(data, raw):
            raise EngineError(
                f"{what} was altered: its content does not have the digest "
                f"{str(data['digest'])[:12]}… that it carries, expected the file as it was "
                "written; restore it or build again"
            )
        if trust is not None:
            trust(str(data.get("engine_sha256")), sha256_bytes(raw))
        _check_schema(data, what)
        try:
            return cls._from_json(data)
        except (AttributeError, KeyError, TypeError) as err:  # where no schema was at hand
            raise EngineError(
                f"{what} is not valid ({type(err).__name__}: {err}), expected what "
                "manifest.schema.json says; restore it or build again"
            ) from err

    @classmethod
    def _from_json(cls, data: Mapping[str, Any]) -> Manifest:
        content = {key: data[key] for key in data if key not in ("manifest", "digest")}
        content["inputs"] = tuple(map(TensorSpec.from_json, data["inputs"]))
        content["outputs"] = tuple(map(TensorSpec.from_json, data["outputs"]))
        content["profiles"] = tuple(map(Profile.from_json, data["profiles"]))
        if data["coverage"] is not None:
            content["coverage"] = Int8Coverage.from_json(data["coverage"])
        content["passport"] = Passport.from_json(data["passport"])
        return cls(**content)


def manifest_path(engine: str | Path) -> Path:
    """``out/model.engine`` → ``out/model.engine.json``."""
    engine = Path(engine)
    return engine.with_name(f"{engine.name}.json")


def read_manifest(engine: str | Path, trust: Trust | None = None) -> Manifest:
    """The manifest beside an engine file; ``trust`` as for ``Manifest.from_bytes``.

    Raises:
        EngineError: it is missing, damaged, altered or of a newer schema.
    """
    path = manifest_path(engine)
    if not path.is_file():
        raise EngineError(
            f"engine {engine} has no manifest {path.name} beside it, expected the file that was "
            "written with it; copy both together"
        )
    raw = read_bounded(path, limit_bytes=LIMIT_BYTES, what="manifest")
    return Manifest.from_bytes(raw, f"manifest {path}", trust)


def read_verified(path: str | Path, trust: Trust | None = None) -> tuple[Manifest, bytes]:
    """Manifest and bytes of an engine whose hash is right; ``trust`` as for ``from_bytes``.

    The bytes are read once: what was hashed is what is loaded, whatever happens to the file. Where
    the two do not fit, they are read once more, when no build renames them: one may just have.

    Raises:
        EngineError: a file is missing, damaged or altered.
    """
    path = Path(path)
    try:
        return _read_verified(path, trust)
    except InputError:
        if not path.parent.is_dir():
            raise
    finish_group(path)
    with folder_lock(path.parent, shared=True):
        return _read_verified(path, trust)


def _read_verified(path: Path, trust: Trust | None) -> tuple[Manifest, bytes]:
    if not path.is_file():
        raise EngineError(f"engine {path} does not exist, expected a file; check the path")
    manifest = read_manifest(path, trust)
    size = path.stat().st_size
    if size != manifest.engine_bytes:
        raise EngineError(
            f"engine {path} has {size} bytes, expected {manifest.engine_bytes} as its manifest "
            "says; copy it again or build it again"
        )
    data = read_bounded(path, limit_bytes=manifest.engine_bytes, what="engine")
    found = sha256_bytes(data)
    if found != manifest.engine_sha256:
        raise EngineError(
            f"engine {path} has sha256 {found[:12]}…, expected {manifest.engine_sha256[:12]}… as "
            "its manifest says: it is damaged or altered; copy it again or build it again"
        )
    return manifest, data


def change_manifest(engine: str | Path, change: Callable[[Manifest], Manifest]) -> Manifest:
    """Replace the manifest beside an engine by what ``change`` makes of it.

    Raises:
        EngineError: the manifest cannot be read, or what it becomes is no plain JSON.
    """
    finish_group(engine)
    with folder_lock(Path(engine).parent):
        manifest = change(read_manifest(engine))
        write_atomic(manifest_path(engine), manifest.to_bytes())
    return manifest


def _parse(raw: bytes, what: str) -> dict[str, Any]:
    try:
        data = parse_json(raw)
    except ValueError as err:
        raise EngineError(
            f"{what} is no JSON ({shortened(str(err))}), expected the file that was written with "
            "the engine; restore it or build again"
        ) from err
    if not isinstance(data, dict):
        data = {}  # the schema says what is missing
    version = data.get("manifest")
    if isinstance(version, int) and version > VERSION:
        raise EngineError(
            f"{what} has schema version {version}, expected at most {VERSION}; it was written by "
            "a newer release: update this one"
        )
    return data


def _check_schema(data: Mapping[str, Any], what: str) -> None:
    """Hold it against the schema.

    A service may have numpy and its runtime alone. There the digest stands for the schema: what is
    as it was written was checked when it was written.
    """
    if not has_module("jsonschema"):
        if "digest" not in data:
            raise EngineError(
                f"{what} has no digest, expected the file that was written with the engine; "
                "restore it or build again"
            )
        return
    best_match = require("jsonschema.exceptions", extra="cpu").best_match
    error = best_match(_validator().iter_errors(data))
    if error is not None:
        where = "/".join(map(str, error.absolute_path)) or "its top level"
        raise EngineError(
            f"{what} is not valid at {where} ({error.message[:200]}), expected what "
            "manifest.schema.json says; restore it or build again"
        )


@cache
def _validator() -> Any:
    jsonschema = require("jsonschema", extra="cpu")
    schema = resources.files("engines").joinpath("manifest.schema.json").read_text("utf-8")
    return jsonschema.Draft202012Validator(json.loads(schema))


def _canonical(data: Mapping[str, Any]) -> bytes:
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _is_as_written(data: Mapping[str, Any], raw: bytes) -> bool:
    """Whether the file is byte for byte what we write for its content, digest included."""
    try:
        return bool(raw == _canonical(data) and data["digest"] == _digest(data))
    except ValueError:  # NaN or half a surrogate pair, which we never write
        return False


def _digest(data: Mapping[str, Any]) -> str:
    return sha256_bytes(_canonical({key: data[key] for key in data if key != "digest"}))
