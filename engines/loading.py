"""Engine file → running engine, after its manifest was checked: nothing is deserialised before."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from artefacts.errors import EngineError
from artefacts.files import read_bounded, sha256_bytes
from engines import openvino_library
from engines.engine import Engine, Runner
from engines.manifest import Manifest, read_manifest
from engines.plan import Plan
from engines.runner_openvino import OpenvinoRunner
from engines.runner_tensorrt import TensorrtRunner
from engines.tensorrt_library import check_gpu, tensorrt

__all__ = ["check_machine", "load", "read_verified"]


def load(path: str | Path, *, device: int = 0, threads: int | None = None) -> Engine:
    """Verify an engine against its manifest and this machine, then load it.

    Args:
        path: e.g. ``out/model.engine``; its manifest lies beside it.
        device: index of the GPU; the cpu target has one device.
        threads: CPU threads; by default what the manifest says.

    Raises:
        EngineError: a file is missing, damaged or altered, or the engine is for another
            library version or device; the message has the command that rebuilds it.
        MissingLibraryError: the runtime is not installed.
        UnsupportedError: this machine has no device for it.
    """
    manifest, data = read_verified(path)
    check_machine(path, manifest, device)
    return Engine(_runner(manifest, data, device, threads), manifest)


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


def check_machine(path: str | Path, manifest: Manifest, device: int = 0) -> None:
    """Whether this machine has the library and the device that the engine was built for.

    Raises:
        EngineError: another version or device; the message has the command that rebuilds it.
        MissingLibraryError: the runtime is not installed.
        UnsupportedError: this machine has no device for it.
    """
    if manifest.target == "cpu":
        version = openvino_library.library_version()
        _check_version(path, manifest, version)
        _check_device(path, manifest, openvino_library.cpu_facts())
        return
    trt = tensorrt(manifest.target)
    _check_version(path, manifest, trt.__version__)
    here = check_gpu(manifest.target, "run the engine", device)
    _check_gpu_kind(path, manifest, here)


def _runner(manifest: Manifest, data: bytes, device: int, threads: int | None) -> Runner:
    if manifest.target == "cpu":
        return OpenvinoRunner.load(
            data,
            manifest.inputs,
            manifest.outputs,
            threads=threads or manifest.options.get("threads"),
            precision=manifest.build.get("inference_precision", "f32"),
        )
    return TensorrtRunner(
        Plan(
            tensorrt(manifest.target),
            data,
            manifest.inputs,
            manifest.outputs,
            manifest.profiles,
            device=device,
        )
    )


def _check_version(path: str | Path, manifest: Manifest, version: str) -> None:
    built = manifest.library["version"]
    if built != version and not manifest.options.get("version_compatible"):
        raise EngineError(
            f"engine {path} was built with {manifest.library['name']} {built}, found {version}, "
            f"expected the same; {_rebuild(path, manifest)}"
        )


def _check_device(path: str | Path, manifest: Manifest, here: dict[str, Any]) -> None:
    for fact in ("architecture", "capabilities", "requirements"):
        if manifest.device.get(fact) != here[fact]:
            raise EngineError(
                f"engine {path} was built for a CPU with {fact} {manifest.device.get(fact)}, "
                f"found {here[fact]}, expected the same; {_rebuild(path, manifest)}"
            )


def _check_gpu_kind(path: str | Path, manifest: Manifest, here: dict[str, str]) -> None:
    """Same compute capability and name; a compatibility level of the build loosens that."""
    found = here["compute_capability"]
    level = manifest.options.get("hardware_compatibility")
    listed = manifest.options.get("compute_capabilities")
    if manifest.target == "tensorrt-rtx":
        fits = found in listed if listed else True
        expected = f"one of {', '.join(listed)}" if listed else "any that TensorRT-RTX knows"
    elif level == "ampere+":
        fits, expected = int(found.split(".")[0]) >= 8, "8.0 or newer"
    elif level == "same-compute-capability":
        expected = str(manifest.device.get("compute_capability"))
        fits = found == expected
    else:
        expected = f"{manifest.device.get('compute_capability')} ({manifest.device['name']})"
        fits = f"{found} ({here['name']})" == expected
    if not fits:
        raise EngineError(
            f"engine {path} was built for a GPU of compute capability {expected}, found {found} "
            f"({here['name']}), expected the same; {_rebuild(path, manifest)}"
        )


def _rebuild(path: str | Path, manifest: Manifest) -> str:
    """The remedy of every mismatch: the command that builds this engine for this machine."""
    return (
        f"build it again here: python build_engine.py --onnx "
        f"{shlex.quote(str(manifest.onnx['name']))} --engine {shlex.quote(str(path))} "
        f"--precision {manifest.precision} --target {manifest.target}"
    )
