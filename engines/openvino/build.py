"""ONNX → a compiled blob for this CPU, by OpenVINO."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from artefacts.errors import ModelError
from artefacts.litter import scratch_folder
from engines.built import BuiltEngine, Feeds
from engines.coverage import openvino_kernels, openvino_precisions
from engines.onnx_layers import graph_names, is_tried
from engines.openvino.cpu_isa import cpu_isa
from engines.openvino.engine_files import load_bytes, network_bytes
from engines.openvino.library import (
    DEVICE,
    core,
    cpu_facts,
    executed_nodes,
    library_version,
    port_index,
    reason,
    settings,
)
from engines.openvino.needed_isa import needed_cpu_isa
from engines.openvino.network import narrow_shapes, read_network, safe_source
from engines.openvino.ranks import refuse_changing_ranks
from engines.options import BuildOptions
from engines.tensors import TensorSpec
from graphs.external_data import save_external
from graphs.files import save_model
from graphs.tensor_data import LARGE_BYTES, weight_bytes

__all__ = ["build_blob", "check_operators", "compiled_call"]

# OpenVINO's name → numpy's
DTYPES = {
    **{f"f{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"i{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "boolean": "bool",
}

# Made-up free axes; what goes wrong with two samples goes wrong with three.
MADE_UP_BATCH = 3
LARGEST_NOISE = (
    1e-6  # of the signal: 60 dB, where the same kernels agree to 120 and wrong ones to 20
)

logger = logging.getLogger(__name__)


def build_blob(
    path: Path, model: onnx.ModelProto, options: BuildOptions, feeds: Feeds = ()
) -> BuiltEngine:
    """Compile an ONNX file for this CPU.

    Args:
        path: of the model; OpenVINO reads it itself, with its external data.
        model: the same model, checked.
        options: precision, profiles and threads matter here.
        feeds: inputs to hold the blob, read back, against what was compiled; made up if none.

    Raises:
        MissingLibraryError: OpenVINO is not installed.
        ModelError: OpenVINO cannot read or compile the model.
    """
    precision = _inference_precision(options.precision)
    chosen = settings(options.threads, precision)
    try:
        network = read_network(safe_source(path, model), options)
        compiled = core().compile_model(network, DEVICE, chosen)
        executed = executed_nodes(compiled)
        exported = compiled.export_model()
        data = bytes(exported.getvalue() if isinstance(exported, io.BytesIO) else exported)
        same = _reads_back(compiled, data, chosen, feeds)
        data = data if same else network_bytes(network)
    except RuntimeError as err:
        raise _refused(f"model {path}", err) from err
    if not same:
        logger.info("OpenVINO reads its blob of %s back wrong: the engine is the network", path)
    inputs, outputs = graph_names(model)
    return BuiltEngine(
        data=data,
        library={"name": "openvino", "version": library_version()},
        device=cpu_facts(),
        inputs=tuple(_spec(compiled.inputs, name) for name in inputs),
        outputs=tuple(_spec(compiled.outputs, name) for name in outputs),
        profiles=options.profiles,
        precisions=openvino_precisions(executed),
        kernels=openvino_kernels(executed),
        source="OpenVINO executed graph",
        facts={
            "inference_precision": precision,
            "form": "blob" if same else "network",
            "cpu_isa": cpu_isa(),
            "needs_cpu_isa": needed_cpu_isa(model),
        },
    )


def check_operators(model: onnx.ModelProto, options: BuildOptions) -> None:
    """Refuse what OpenVINO cannot read, before a long run ends there; the largest are not tried.

    Args:
        model: prepared.
        options: the profiles say which sizes are fixed.

    Raises:
        MissingLibraryError: OpenVINO is not installed.
        ModelError: OpenVINO lacks an operator, or the type of an input or output, or its CPU plugin
            has no kernels for tensors whose number of axes changes.
    """
    wide = [v for v in (*model.graph.input, *model.graph.output) if _is_float64(v)]
    if wide:
        raise ModelError(
            f"{wide[0].name} of graph {model.graph.name!r} is float64, which OpenVINO's CPU plugin "
            "does not take at the edge of a network, expected float32; export the model in float32"
        )
    if not is_tried(model):
        return
    with scratch_folder("openvino") as folder:
        path = folder / "model.onnx"  # given as bytes, a model is held twice more while it is read
        # Weights in a file of their own are mapped and, as nothing is computed, never looked at.
        write = save_external if weight_bytes(model) > LARGE_BYTES else save_model
        write(model, path)
        try:
            network = core().read_model(path)
            narrow_shapes(network, options)
        except RuntimeError as err:
            raise _refused(f"graph {model.graph.name!r}", err) from err
        refuse_changing_ranks(network, model.graph.name)


def _is_float64(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE)


def _refused(what: str, err: RuntimeError) -> ModelError:
    return ModelError(
        f"{what} is refused by OpenVINO ({reason(err)}), expected operators and shapes that its "
        "CPU plugin has; simplify the model or build for another target"
    )


def compiled_call(
    model: onnx.ModelProto, options: BuildOptions
) -> Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]:
    """A model compiled for this CPU and never written: what an engine of it would compute.

    Raises:
        MissingLibraryError: OpenVINO is not installed.
        ModelError: OpenVINO cannot read, compile or run the model.
    """
    names = graph_names(model)[1]
    try:
        network = read_network(model.SerializeToString(), options)
        chosen = settings(options.threads, _inference_precision(options.precision))
        compiled = core().compile_model(network, DEVICE, chosen)
    except RuntimeError as err:
        raise _refused(f"graph {model.graph.name!r}", err) from err
    ports = {name: port_index(compiled.outputs, name) for name in names}

    def call(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            found = compiled(dict(inputs))
        except RuntimeError as err:
            raise ModelError(
                f"graph {model.graph.name!r} fails in OpenVINO ({reason(err)}), expected inputs "
                "that fit each other; correct the samples"
            ) from err
        return {name: np.array(found[port]) for name, port in ports.items()}

    return call


def _reads_back(compiled: Any, data: bytes, chosen: Mapping[str, Any], feeds: Feeds) -> bool:
    """Whether a blob computes what it was exported from: on ``feeds``, or on made-up inputs."""
    imported = load_bytes(data, chosen)
    for inputs in feeds or [_made_up(compiled, batch) for batch in (1, MADE_UP_BATCH)]:
        try:
            pairs = [model(dict(inputs)) for model in (compiled, imported)]
        except RuntimeError:  # made-up inputs do not fit each other: nothing can be said
            continue
        for wanted, got in zip(*(found.values() for found in pairs), strict=True):
            if not _alike(wanted, got):
                return False
    return True


def _made_up(compiled: Any, batch: int) -> dict[str, NDArray[Any]]:
    """Random inputs, free axes as long as they must be and the first ``batch``."""
    rng = np.random.default_rng(0)
    made = {}
    for port in compiled.inputs:
        dims = list(port.get_partial_shape())
        shape = [d.get_length() if d.is_static else max(d.get_min_length(), batch) for d in dims]
        values = rng.standard_normal(shape)
        made[port.get_any_name()] = values.astype(port.get_element_type().to_dtype())
    return made


def _alike(wanted: NDArray[Any], got: NDArray[Any]) -> bool:
    """Whether two results of the same kernels differ by rounding only."""
    if wanted.shape != got.shape:
        return False
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    known = np.isfinite(a)
    if not np.array_equal(known, np.isfinite(b)):
        return False
    return bool(((a[known] - b[known]) ** 2).sum() <= LARGEST_NOISE * (a[known] ** 2).sum())


def _inference_precision(precision: str | None) -> str:
    """The floating-point type that layers outside INT8 run in.

    fp32 and int8 state float32, so an FP32 baseline is one on every CPU (left alone, OpenVINO
    takes bfloat16 where the CPU has it). fp16 takes the half type that this CPU computes in.
    """
    if precision != "fp16":
        return "f32"
    for capability, hint in (("FP16", "f16"), ("BF16", "bf16")):
        if capability in cpu_facts()["capabilities"]:
            return hint
    logger.warning(
        "this CPU (%s) has no 16-bit floating-point arithmetic: the fp16 engine runs float32",
        cpu_facts()["name"],
    )
    return "f32"


def _spec(ports: Sequence[Any], name: str) -> TensorSpec:
    port = ports[port_index(ports, name)]
    shape = tuple(d.get_length() if d.is_static else None for d in port.get_partial_shape())
    kind = port.get_element_type().get_type_name()
    if kind not in DTYPES:
        raise ModelError(
            f"tensor {name!r} has the type {kind}, which numpy does not have, expected one of "
            f"{', '.join(DTYPES.values())} at the model's inputs and outputs; add a Cast"
        )
    dtype = DTYPES[kind]
    return TensorSpec(name=name, dtype=dtype, shape=shape)
