"""Engine file → running engine, after its manifest was checked: nothing is deserialised before."""

from __future__ import annotations

from pathlib import Path

from artefacts.errors import InputError
from engines.engine import Engine
from engines.manifest import Manifest, read_verified
from engines.monitoring.recorder import Recorder
from engines.runtimes import runtime_of
from engines.serving.signing import check_signature

__all__ = ["check_machine", "load"]


def load(
    path: str | Path,
    *,
    device: int = 0,
    threads: int | None = None,
    trusted_key: str | Path | None = None,
    record: Recorder | None = None,
) -> Engine:
    """Verify an engine against its manifest and this machine, then load it.

    Args:
        path: e.g. ``out/model.engine``; its manifest lies beside it.
        device: index of the GPU; the cpu target has one device.
        threads: CPU threads; by default what the manifest says.
        trusted_key: PEM file with a public key; an engine that it did not sign is refused.
        record: keeps a sample of the requests; nothing is kept without one.

    Raises:
        EngineError: a file is missing, damaged or altered, the signature is missing or wrong, or
            the engine is for another library version or device; the message has the command
            that rebuilds it.
        InputError: the key or the recorder's folder cannot be used.
        MissingLibraryError: the runtime is not installed, or with a key the extra ``signing``.
        UnsupportedError: this machine has no device for it.
    """
    manifest, data = read_verified(path)
    if trusted_key is not None:
        check_signature(path, manifest, trusted_key)
    check_machine(path, manifest, device)
    runtime = runtime_of(manifest.target)
    engine = Engine(runtime.load(Path(path), manifest, data, device, threads), manifest)
    try:
        _observe(engine, record)
    except InputError:
        engine.close()
        raise
    return engine


def _observe(engine: Engine, record: Recorder | None) -> None:
    if record is not None:
        record.attach(engine.manifest)
        engine.observers += (record.observe,)


def check_machine(path: str | Path, manifest: Manifest, device: int = 0) -> None:
    """Whether this machine has the library and the device that the engine was built for.

    Raises:
        EngineError: another version or device; the message has the command that rebuilds it.
        MissingLibraryError: the runtime is not installed.
        UnsupportedError: this machine has no device for it.
    """
    runtime_of(manifest.target).check(Path(path), manifest, device)
