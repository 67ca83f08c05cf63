"""Engine file → running engine, after its manifest was checked: nothing is deserialised before."""

from __future__ import annotations

from pathlib import Path

from artefacts.errors import InputError
from engines.engine import Engine
from engines.manifest import Manifest, read_verified
from engines.monitoring.drift import Watch
from engines.monitoring.recorder import Recorder
from engines.runtimes import runtime_of
from engines.serving.release import Expected
from engines.serving.signing import trust_by

__all__ = ["check_machine", "load"]


def load(
    path: str | Path,
    *,
    device: int = 0,
    threads: int | None = None,
    trusted_key: str | Path | None = None,
    expected: Expected | None = None,
    check_inputs: bool = False,
    record: Recorder | None = None,
    drift: bool = False,
) -> Engine:
    """Verify an engine against its manifest and this machine, then load it.

    Args:
        path: e.g. ``out/model.engine``; its manifest lies beside it.
        device: index of the GPU; the cpu target has one device.
        threads: CPU threads; by default what the manifest says.
        trusted_key: PEM file with a public key; an engine that it did not sign is refused, and so
            is one whose last day is over.
        expected: name and version that must have been signed, and what was revoked.
        check_inputs: refuse inputs with NaN or infinite values, which INT8 engines answer with
            finite numbers; reads every element once.
        record: keeps a sample of the requests; nothing is kept without one.
        drift: compare requests with the calibration data, for ``engine.drift``; some µs a request.

    Raises:
        EngineError: a file is missing, damaged or altered, the signature is missing or wrong, or
            the engine is for another library version or device, or with
            ``drift`` has no summary of its inputs; the message has the command
            that rebuilds it.
        InputError: the key or the recorder's folder cannot be used.
        MissingLibraryError: the runtime is not installed, or with a key the extra ``signing``.
        UnsupportedError: this machine has no device for it.
    """
    trust = None if trusted_key is None else trust_by(path, trusted_key)
    manifest, data = read_verified(path, trust)
    if trusted_key is not None or expected is not None:
        (expected or Expected()).check(path, manifest)
    check_machine(path, manifest, device)
    runner = runtime_of(manifest.target).load(Path(path), manifest, data, device, threads)
    engine = Engine(runner, manifest, check_inputs=check_inputs)
    try:
        _observe(engine, record, drift)
    except InputError:
        engine.close()
        raise
    return engine


def _observe(engine: Engine, record: Recorder | None, drift: bool) -> None:
    if drift:
        engine.watch = Watch(engine.manifest.passport)
        engine.observers += (engine.watch.observe,)
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
