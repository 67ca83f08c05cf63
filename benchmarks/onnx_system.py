"""Plain ONNX through onnxruntime, as a system to compare with: the FP32 reference."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from artefacts.errors import ModelError, RequestError
from artefacts.libraries import require
from artefacts.litter import scratch_folder
from artefacts.onnxruntime_errors import onnxruntime_errors
from benchmarks.onnx_nodes import name_nodes, weighted_nodes
from benchmarks.report.document import KernelReport, LayerReport
from calibrators.samples.axes import noted
from calibrators.samples.data import InputSpec
from graphs.operators import PAIR_OPS
from graphs.walk import nodes

__all__ = ["OnnxSystem", "parse_profile"]

Arrays = dict[str, npt.NDArray[np.generic]]
# onnxruntime spells element types its own way; the rest are numpy's names.
DTYPES = {"float": "float32", "double": "float64"}
PROVIDERS = ["CPUExecutionProvider"]
QUANTIZED = PAIR_OPS | {"QLinearConv", "QLinearMatMul"}
PROFILED_RUNS = 30
KERNEL = "_kernel_time"


class OnnxSystem:
    """An ONNX file run by onnxruntime on the CPU; called like an engine."""

    def __init__(self, path: str | Path) -> None:
        self._runtime = runtime = require("onnxruntime", extra="cpu")
        try:
            self._session = runtime.InferenceSession(
                str(path), _options(runtime), providers=PROVIDERS
            )
        except onnxruntime_errors() as err:
            raise ModelError(
                f"model {path} cannot be loaded by onnxruntime ({str(err)[:200]}), expected a "
                "valid ONNX file; check it with onnx.checker"
            ) from err
        specs = [
            InputSpec(
                name=entry.name,
                dtype=_dtype(entry.type),
                shape=tuple(size if isinstance(size, int) else None for size in entry.shape),
            )
            for entry in self._session.get_inputs()
        ]
        self.inputs = noted(specs, self._session.get_modelmeta().custom_metadata_map)
        self._names = [entry.name for entry in self._session.get_outputs()]

        self._path = Path(path)

    @cached_property
    def _model(self) -> onnx.ModelProto:
        return onnx.load(self._path, load_external_data=False)

    @property
    def precision(self) -> str:
        """``int8`` where the graph has quantized layers, else by its weights."""
        graph = self._model.graph
        if any(node.op_type in QUANTIZED for node in nodes(graph)):
            return "int8"
        kinds = {tensor.data_type for tensor in graph.initializer}
        return "fp16" if onnx.TensorProto.FLOAT16 in kinds else "fp32"

    @property
    def layers(self) -> tuple[LayerReport, ...]:
        """The weighted nodes of the graph."""
        return weighted_nodes(self._model)

    def __call__(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        """Outputs by name.

        Raises:
            RequestError: the arrays do not fit the model.
        """
        try:
            found = self._session.run(None, dict(inputs))
        except onnxruntime_errors() as err:
            raise self._refusal(err) from err
        return dict(zip(self._names, found, strict=True))

    def exact(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        """Outputs of the graph as it is written: Q/DQ pairs in float arithmetic.

        Optimised, onnxruntime replaces them by the integer kernels of this processor, which
        saturate where it has no VNNI instructions.

        Raises:
            RequestError: the arrays do not fit the model.
        """
        try:
            found = self._exact_session.run(None, dict(inputs))
        except onnxruntime_errors() as err:
            raise self._refusal(err) from err
        return dict(zip(self._names, found, strict=True))

    @cached_property
    def _exact_session(self) -> Any:
        options = _options(self._runtime)
        levels = self._runtime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_DISABLE_ALL
        return self._runtime.InferenceSession(str(self._path), options, providers=PROVIDERS)

    def _refusal(self, err: Exception) -> RequestError:
        return RequestError(
            f"model {self._path} refuses its inputs ({str(err)[:200]}), expected "
            f"{', '.join(map(str, self.inputs))}; correct the arrays"
        )

    def layer_times(
        self, inputs: Mapping[str, npt.NDArray[np.generic]]
    ) -> tuple[KernelReport, ...]:
        """Milliseconds of each kernel for these inputs, by onnxruntime's own profiler.

        A session of its own: profiling slows the others down.
        """
        with scratch_folder("profile") as folder:
            options = _options(self._runtime)
            options.enable_profiling = True
            options.profile_file_prefix = str(folder / "profile")
            session = self._runtime.InferenceSession(str(self._path), options, providers=PROVIDERS)
            for _ in range(PROFILED_RUNS):
                session.run(None, dict(inputs))
            events = json.loads(Path(session.end_profiling()).read_bytes())
        return name_nodes(self._model, parse_profile(events))


def parse_profile(events: Sequence[Mapping[str, Any]]) -> tuple[KernelReport, ...]:
    """Each kernel with its median time, from the events of onnxruntime's profile.

    Args:
        events: each with ``cat``, ``name`` and ``dur`` in microseconds; a node's kernel is named
            ``<node>_kernel_time`` and says its operator in ``args``.
    """
    times: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(KERNEL):
            node = name.removesuffix(KERNEL)
            times[node].append(float(event["dur"]) / 1e3)
            kinds[node] = str(event.get("args", {}).get("op_name", "unknown"))
    return tuple(
        KernelReport(
            name=node,
            kind=kinds[node],
            nodes=(node,),
            precision="unknown",
            time_ms=float(np.median(values)),
        )
        for node, values in times.items()
    )


def _options(runtime: Any) -> Any:
    """Settings of every session."""
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    # Threads that go on spinning after a run would slow the system measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _dtype(spelled: str) -> np.dtype[np.generic]:
    """E.g. ``tensor(float)`` as float32."""
    name = spelled.removeprefix("tensor(").removesuffix(")")
    try:
        return np.dtype(DTYPES.get(name, name))
    except TypeError as err:
        raise ModelError(
            f"model has an input of type {spelled}, expected a numeric tensor; export it again"
        ) from err
