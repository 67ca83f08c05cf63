"""Engine file → running engine, after its manifest was checked: nothing is deserialised before."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from artefacts.errors import EngineError
from engines.engine import Engine, Runner
from engines.manifest import Manifest, read_verified
from engines.openvino import library as openvino_library
from engines.openvino.cpu_isa import cpu_isa
from engines.openvino.runner import OpenvinoRunner
from engines.serving.release import Expected
from engines.serving.signing import trust_by
from engines.tensorrt.library import check_gpu, tensorrt
from engines.tensorrt.plan import Plan
from engines.tensorrt.runner import TensorrtRunner

__all__ = ["check_machine", "load"]


def load(
    path: str | Path,
    *,
    device: int = 0,
    threads: int | None = None,
    trusted_key: str | Path | None = None,
    expected: Expected | None = None,
    check_inputs: bool = False,
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

    Raises:
        EngineError: a file is missing, damaged or altered, the signature is missing or wrong, or
            the engine is for another library version or device; the message has the command
            that rebuilds it.
        InputError: the key cannot be used.
        MissingLibraryError: the runtime is not installed, or with a key the extra ``signing``.
        UnsupportedError: this machine has no device for it.
    """
    trust = None if trusted_key is None else trust_by(path, trusted_key)
    manifest, data = read_verified(path, trust)
    if trusted_key is not None or expected is not None:
        (expected or Expected()).check(path, manifest)
    check_machine(path, manifest, device)
    runner = _runner(Path(path), manifest, data, device, threads)
    return Engine(runner, manifest, check_inputs=check_inputs)


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
        _check_cpu_isa(path, manifest)
        _check_device(path, manifest, openvino_library.cpu_facts())
        return
    trt = tensorrt(manifest.target)
    _check_version(path, manifest, trt.__version__)
    here = check_gpu(manifest.target, "run the engine", device)
    _check_gpu_kind(path, manifest, here)


def _runner(
    path: Path, manifest: Manifest, data: bytes, device: int, threads: int | None
) -> Runner:
    if manifest.target == "cpu":
        return OpenvinoRunner.load(
            data,
            manifest.inputs,
            manifest.outputs,
            threads=threads or manifest.options.get("threads"),
            precision=manifest.build.get("inference_precision", "f32"),
            reread=partial(_reread, path, manifest.engine_sha256),
        )
    return TensorrtRunner(
        Plan(
            tensorrt(manifest.target),
            data,
            manifest.inputs,
            manifest.outputs,
            manifest.profiles,
            device=device,
            dla_core=manifest.options.get("dla_core"),
        )
    )


def _reread(path: Path, sha256: str) -> bytes:
    """The bytes that were loaded, once more; the file may have been replaced meanwhile."""
    manifest, data = read_verified(path)
    if manifest.engine_sha256 != sha256:
        raise EngineError(
            f"engine {path} is now another one (sha256 {manifest.engine_sha256}), expected the "
            f"one that was loaded ({sha256}); load it again"
        )
    return data


def _check_version(path: str | Path, manifest: Manifest, version: str) -> None:
    built = manifest.library["version"]
    if built != version and not manifest.options.get("version_compatible"):
        raise EngineError(
            f"engine {path} was built with {manifest.library['name']} {built}, found {version}, "
            f"expected the same; {_rebuild(path, manifest)}"
        )


def _check_cpu_isa(path: str | Path, manifest: Manifest) -> None:
    """An engine whose weights count on VNNI saturates without it."""
    built = manifest.build.get("cpu_isa"), manifest.build.get("needs_cpu_isa")
    if built == ("vnni", "vnni") and cpu_isa() != "vnni":
        raise EngineError(
            f"engine {path} was built for CPUs with VNNI, found one without, whose 16-bit sums "
            f"would saturate, expected VNNI; {_rebuild(path, manifest)} --cpu-isa portable"
        )


def _check_device(path: str | Path, manifest: Manifest, here: dict[str, Any]) -> None:
    for fact in ("architecture", "capabilities", "requirements"):
        if manifest.device.get(fact) != here[fact]:
            raise EngineError(
                f"engine {path} was built for a CPU with {fact} {manifest.device.get(fact)}, "
                f"found {here[fact]}, expected the same; {_rebuild(path, manifest)}"
            )


def _check_gpu_kind(path: str | Path, manifest: Manifest, here: dict[str, str]) -> None:
    """Same compute capability, name and size; a compatibility level of the build loosens that."""
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
        expected = _kind_of_gpu(manifest.device, manifest.device)
        fits = _kind_of_gpu(here, manifest.device) == expected
    if not fits:
        raise EngineError(
            f"engine {path} was built for a GPU of compute capability {expected}, found "
            f"{_kind_of_gpu(here, here)}, expected the same; {_rebuild(path, manifest)}"
        )


def _kind_of_gpu(gpu: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """What a plan is bound to, as far as ``told`` has it: engines of before lack the number."""
    number = f", {gpu.get('multiprocessors')} multiprocessors" if "multiprocessors" in told else ""
    return f"{gpu.get('compute_capability')} ({gpu['name']}{number})"


def _rebuild(path: str | Path, manifest: Manifest) -> str:
    """The remedy of every mismatch: the command that builds this engine for this machine."""
    return (
        f"build it again here: python build_engine.py --onnx "
        f"{shlex.quote(str(manifest.onnx['name']))} --engine {shlex.quote(str(path))} "
        f"--precision {manifest.precision} --target {manifest.target}"
    )
