"""Engine file → running engine, after its manifest was checked: nothing is deserialised before."""

from __future__ import annotations

import shlex
from pathlib import Path

from artefacts.errors import EngineError
from artefacts.files import read_bounded, sha256_bytes
from engines import openvino_runtime
from engines.engine import Engine
from engines.manifest import Manifest, read_manifest

__all__ = ["load", "read_verified"]


def load(path: str | Path, *, threads: int | None = None) -> Engine:
    """Verify an engine against its manifest and this machine, then load it.

    Args:
        path: e.g. ``out/model.engine``; its manifest lies beside it.
        threads: CPU threads; by default what the manifest says.

    Raises:
        EngineError: a file is missing, damaged or altered, or the engine is for another
            library version or device; the message has the command that rebuilds it.
        MissingLibraryError: the runtime is not installed.
        UnsupportedError: this machine has no device for it.
    """
    manifest, data = read_verified(path)
    _check_cpu(path, manifest)
    runner = openvino_runtime.OpenvinoRunner.load(
        data,
        manifest.inputs,
        manifest.outputs,
        threads=threads or manifest.options.get("threads"),
        precision=manifest.build["inference_precision"],
    )
    return Engine(runner, manifest)


def read_verified(path: str | Path) -> tuple[Manifest, bytes]:
    """Manifest and bytes of an engine whose hash is right.

    The bytes are read once: what was hashed is what is loaded, whatever happens to the file.

    Raises:
        EngineError: a file is missing, damaged or altered.
    """
    path = Path(path)
    if not path.is_file():
        raise EngineError(f"engine {path} does not exist, expected a file; check the path")
    manifest = read_manifest(path)
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


def _check_cpu(path: str | Path, manifest: Manifest) -> None:
    version = openvino_runtime.library_version()
    if manifest.library["version"] != version:
        raise EngineError(
            f"engine {path} was built with OpenVINO {manifest.library['version']}, found "
            f"{version}, expected the same; {rebuild_hint(path, manifest)}"
        )
    here = openvino_runtime.cpu_facts()
    for fact in ("architecture", "capabilities", "requirements"):
        if manifest.device.get(fact) != here[fact]:
            raise EngineError(
                f"engine {path} was built for a CPU with {fact} {manifest.device.get(fact)}, "
                f"found {here[fact]}, expected the same; {rebuild_hint(path, manifest)}"
            )


def rebuild_hint(path: str | Path, manifest: Manifest) -> str:
    """The remedy of every mismatch: the command that builds this engine for this machine."""
    command = (
        f"python build_engine.py --onnx {shlex.quote(str(manifest.onnx['name']))} "
        f"--engine {shlex.quote(str(path))} --precision {manifest.precision} "
        f"--target {manifest.target}"
    )
    return f"build it again here: {command}"
