"""Engine → model repository of Triton: ``<name>/config.pbtxt`` and ``<name>/<version>/``.

A TensorRT plan is served by Triton's own backend, an engine of the cpu target by Python code
that calls ``engines.load``. Fields of ``config.pbtxt`` as in
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from artefacts.errors import InputError, UnsupportedError
from artefacts.faults import writing
from artefacts.files import read_bounded, sync_folder, write_atomic
from artefacts.groups import folder_lock
from artefacts.litter import scratch_folder
from engines.manifest import Manifest, manifest_path, read_verified
from engines.monitoring.drift import Watch
from engines.monitoring.settings import Monitored
from engines.runtimes import RUNTIMES, runtime_of
from engines.serving.signing import LIMIT_BYTES, signature_path, trust_by
from engines.serving.triton_model import ENGINE, KEY_PARAMETER
from engines.tensors import TensorSpec

__all__ = ["export_triton", "model_config", "server_options"]

PLAN = "model.plan"
DEFAULT_BATCH = 8  # where no profile bounds the batch
MODEL_PY = '''"""Served by Triton's Python backend, in whose Python this project is installed."""

from engines.serving.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
DATA_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}


def export_triton(
    engine: str | Path,
    repository: str | Path,
    *,
    name: str | None = None,
    max_batch: int | None = None,
    instances: int = 1,
    trusted_key: str | Path | None = None,
    monitored: Monitored | None = None,
) -> Path:
    """Add an engine to a model repository, as the next version of its model.

    Args:
        engine: e.g. ``out/model.engine``; it is verified against its manifest first.
        repository: folder that ``tritonserver --model-repository`` is given.
        name: of the model; by default the engine's file name without ``.engine``.
        max_batch: largest batch Triton may form; by default what the profiles allow.
        instances: engines that run at the same time.
        trusted_key: PEM file with a public key; an engine that it did not sign is not exported,
            and a cpu engine is checked again by the server, under this path. Triton itself loads
            a TensorRT plan, and checks nothing.
        monitored: what the server watches and keeps of the requests of a cpu engine; None for
            nothing. Each instance records to a folder of its own below the one that is named.

    Returns:
        The version's folder, e.g. ``repo/model/1``.

    Raises:
        EngineError: the engine is damaged or altered.
        InputError: a name or number that cannot be used, or the repository cannot be written.
        UnsupportedError: Triton has no such dtype, or no backend for the target; or it is to be
            monitored, which Triton's own backend cannot.
    """
    trust = None if trusted_key is None else trust_by(engine, trusted_key)
    manifest, data = read_verified(engine, trust)
    name = Path(engine).name.removesuffix(".engine") if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
        raise InputError(
            f"model name {name!r} cannot be used, expected letters, digits, '.', '_' and '-' "
            "beginning with a letter or digit; choose another with --name"
        )
    config = model_config(manifest, name, max_batch=max_batch, instances=instances)
    in_python = runtime_of(manifest.target).triton == "python"
    file = ENGINE if in_python else PLAN
    parameters = _monitoring(manifest, monitored or Monitored(), in_python=in_python)
    if trusted_key is not None and in_python:
        parameters[KEY_PARAMETER] = str(Path(trusted_key).absolute())
    for key, text in parameters.items():
        config += f'parameters {{ key: "{key}" value {{ string_value: {_quoted(text)} }} }}\n'
    files = {file: data, manifest_path(file).name: manifest.to_bytes()}
    if in_python:
        files["model.py"] = MODEL_PY.encode()
    if (signature := signature_path(engine)).is_file():
        files[signature_path(file).name] = read_bounded(
            signature, limit_bytes=LIMIT_BYTES, what="signature"
        )
    model = Path(repository, name)
    # Triton takes a folder for a model once it has a version, so the configuration comes first.
    write_atomic(model / "config.pbtxt", config.encode())
    return _write_version(model, files)


def _monitoring(manifest: Manifest, monitored: Monitored, *, in_python: bool) -> dict[str, str]:
    """The parameters, after what the server would refuse was refused here."""
    parameters = monitored.to_parameters()
    if parameters and not in_python:
        raise UnsupportedError(
            f"engine has target {manifest.target}, which Triton's own backend serves, expected one "
            "served by Python to record or watch requests; leave --record and --drift out"
        )
    if monitored.drift:
        Watch(manifest.passport)
    monitored.recorder()
    if monitored.record is not None:
        parameters["record"] = str(Path(monitored.record).absolute())
    return parameters


def model_config(
    manifest: Manifest, name: str, *, max_batch: int | None = None, instances: int = 1
) -> str:
    """The text of ``config.pbtxt``; arguments and errors as for ``export_triton``."""
    backend = runtime_of(manifest.target).triton
    if backend is None:
        served = [target for target, runtime in RUNTIMES.items() if runtime.triton]
        raise UnsupportedError(
            f"engine has target {manifest.target}, which Triton has no backend for, expected "
            f"{' or '.join(served)}; build for another --target"
        )
    if instances < 1:
        raise InputError(f"--instances is {instances}, expected at least 1; correct it")
    batch = _max_batch(manifest, max_batch)
    on_cpu = backend == "python"
    profiles = ", ".join(f'"{index}"' for index in range(len(manifest.profiles)))
    group = [f"count: {instances}", f"kind: {'KIND_CPU' if on_cpu else 'KIND_GPU'}"]
    if not on_cpu and len(manifest.profiles) > 1:
        group.append(f"profile: [ {profiles} ]")
    if (core := manifest.options.get("dla_core")) is not None:
        group.append(f"secondary_devices [ {{ kind: KIND_NVDLA, device_id: {core} }} ]")
    lines = [
        f"name: {_quoted(name)}",
        'backend: "python"' if on_cpu else f'platform: "{backend}"',
        f"max_batch_size: {batch}",
        *_tensors("input", manifest.inputs, batch),
        *_tensors("output", manifest.outputs, batch),
        f"instance_group [ {{ {', '.join(group)} }} ]",
        # Without a delay: what waits is batched, nothing waits for a batch.
        *(["dynamic_batching { }"] if batch else []),
        *_warm_up(manifest, batch),
    ]
    return "\n".join(lines) + "\n"


def _max_batch(manifest: Manifest, wanted: int | None) -> int:
    """Triton's ``max_batch_size``: 0 where the first axis of some tensor is not a free batch."""
    tensors = (*manifest.inputs, *manifest.outputs)
    if not all(spec.shape and spec.shape[0] is None for spec in tensors):
        if wanted:
            raise InputError(
                f"--max-batch is {wanted} and the engine's tensors have no dynamic first axis, "
                "expected 0; leave it out, or build with a dynamic batch"
            )
        return 0
    largest = max(
        (
            min(profile.max[spec.name][0] for spec in manifest.inputs)
            for profile in manifest.profiles
            if all(spec.name in profile.max for spec in manifest.inputs)
        ),
        default=None,
    )
    if wanted is None:
        return largest or DEFAULT_BATCH
    if wanted < 1 or (largest is not None and wanted > largest):
        raise InputError(
            f"--max-batch is {wanted}, expected 1 to {largest or 'any number'} (the engine's "
            "profiles); correct it, or build with larger --maxShapes"
        )
    return wanted


def _tensors(kind: str, specs: Sequence[TensorSpec], batch: int) -> list[str]:
    """``input [ ... ]``; where Triton batches, ``dims`` are those of one sample."""
    entries = [
        f"  {{ name: {_quoted(spec.name)}, data_type: {_data_type(spec)}, "
        f"dims: {_dims(spec.shape[1:] if batch else spec.shape)} }}"
        for spec in specs
    ]
    return [f"{kind} [", ",\n".join(entries), "]"]


def _warm_up(manifest: Manifest, batch: int) -> list[str]:
    """Zeros of the most frequent shape, as the smallest and as a full batch, before it is ready.

    Left out where a dimension other than the batch is dynamic and no profile names its size.
    """
    usual = manifest.profiles[0].opt if manifest.profiles else {}
    inputs = []
    for spec in manifest.inputs:
        shape = usual.get(spec.name, spec.shape)[1 if batch else 0 :]
        if None in shape:
            return []
        inputs.append(
            f"  inputs {{ key: {_quoted(spec.name)} value {{ data_type: {_data_type(spec)}, "
            f"dims: {_dims(shape)}, zero_data: true }} }}"
        )
    sizes = _warm_up_batches(manifest, batch) if batch else [1]
    return [
        line
        for size in sizes
        for line in (
            "model_warmup {",
            f'  name: "zeros_{size if batch else "static"}"',
            f"  batch_size: {size}",
            *inputs,
            "}",
        )
    ]


def _warm_up_batches(manifest: Manifest, batch: int) -> list[int]:
    """Within the first profile, whose shapes are used: any other makes Triton refuse the model."""
    low, high = 1, batch
    if manifest.profiles:
        first = manifest.profiles[0]
        low = max((shape[0] for shape in first.min.values()), default=1)
        high = min([batch, *(shape[0] for shape in first.max.values())])
    return sorted({low, high}) if low <= high else []


def server_options(manifest: Manifest) -> str:
    """What ``tritonserver`` must be told beside the repository; mostly nothing."""
    plan = runtime_of(manifest.target).triton == "tensorrt_plan"
    if plan and manifest.options.get("version_compatible"):
        return "--backend-config=tensorrt,version-compatible=true"
    return ""


def _data_type(spec: TensorSpec) -> str:
    if spec.dtype not in DATA_TYPES:
        raise UnsupportedError(
            f"tensor {spec.name!r} has dtype {spec.dtype}, expected one that Triton has "
            f"({', '.join(DATA_TYPES)}); cast it inside the model"
        )
    return DATA_TYPES[spec.dtype]


def _dims(shape: Sequence[int | None]) -> str:
    return f"[ {', '.join('-1' if size is None else str(size) for size in shape)} ]"


def _quoted(text: str) -> str:
    """A string of the protobuf text format: names come from a model and may hold anything."""
    plain = {byte: chr(byte) for byte in range(32, 127)} | {34: r"\"", 92: r"\\"}
    return '"' + "".join(plain.get(byte, f"\\{byte:03o}") for byte in text.encode()) + '"'


def _write_version(model: Path, files: dict[str, bytes]) -> Path:
    """The next version's folder; it appears complete, under its number, or not at all."""
    with writing(model / "1" / ENGINE), scratch_folder("version", model) as made:
        part = made / "version"  # no number, and the folder's name neither: Triton passes over it
        for name, data in files.items():
            write_atomic(part / name, data)
        with folder_lock(model):
            taken = [int(p.name) for p in model.iterdir() if p.name.isdecimal()]
            version = model / str(max(taken, default=0) + 1)
            part.rename(version)
            sync_folder(model)
    return version
