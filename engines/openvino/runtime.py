"""OpenVINO, as the rest of the project knows it: the runtime of the cpu target."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from artefacts.errors import EngineError
from engines.built import BuiltEngine, Feeds, Report
from engines.manifest import Manifest, read_verified
from engines.openvino.cpu_isa import cpu_isa, resolve_cpu_isa
from engines.openvino.library import cpu_facts, library_version, openvino
from engines.openvino.runner import OpenvinoRunner
from engines.options import BuildOptions
from engines.rebuild import check_version, rebuild_command
from engines.runtime import Call, Runtime

if TYPE_CHECKING:  # a service has no onnx
    import onnx

__all__ = ["OPENVINO"]

BOUND_TO = ("architecture", "capabilities", "requirements")


def _build(
    path: Path, model: onnx.ModelProto, options: BuildOptions, report: Report, feeds: Feeds
) -> BuiltEngine:
    from engines.openvino.build import build_blob

    return build_blob(path, model, options, feeds)


def _check_operators(model: onnx.ModelProto, options: BuildOptions) -> None:
    from engines.openvino.build import check_operators

    check_operators(model, options)


def _compiled(model: onnx.ModelProto, options: BuildOptions) -> Call:
    from engines.openvino.build import compiled_call

    return compiled_call(model, options)


def _load(
    path: Path, manifest: Manifest, data: bytes, device: int, threads: int | None
) -> OpenvinoRunner:
    return OpenvinoRunner.load(
        data,
        manifest.inputs,
        manifest.outputs,
        threads=threads or manifest.options.get("threads"),
        precision=manifest.build.get("inference_precision", "f32"),
        reread=partial(_reread, path, manifest.engine_sha256),
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


def _check(path: Path, manifest: Manifest, device: int) -> None:
    check_version(path, manifest, library_version())
    _check_isa(path, manifest)
    here = cpu_facts()
    for fact in BOUND_TO:
        if manifest.device.get(fact) != here[fact]:
            raise EngineError(
                f"engine {path} was built for a CPU with {fact} {manifest.device.get(fact)}, "
                f"found {here[fact]}, expected the same; {rebuild_command(path, manifest)}"
            )


def _check_isa(path: Path, manifest: Manifest) -> None:
    """An engine whose weights count on VNNI saturates without it."""
    built = manifest.build.get("cpu_isa"), manifest.build.get("needs_cpu_isa")
    if built == ("vnni", "vnni") and cpu_isa() != "vnni":
        raise EngineError(
            f"engine {path} was built for CPUs with VNNI, found one without, whose 16-bit sums "
            f"would saturate, expected VNNI; {rebuild_command(path, manifest)} --cpu-isa portable"
        )


def _takes_types() -> bool:
    """It computes in one floating-point type, which the build chooses."""
    return False


def _ready() -> None:
    openvino()


OPENVINO = Runtime(
    library="openvino",
    placement="cpu",
    options=frozenset({"threads"}),
    needs_profiles=False,
    tf32=False,
    build=_build,
    load=_load,
    check=_check,
    takes_types=_takes_types,
    one_float_type=True,
    ready=_ready,
    check_operators=_check_operators,
    compiled=_compiled,
    resolve_isa=resolve_cpu_isa,
    triton="python",
)
