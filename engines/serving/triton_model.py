"""What Triton's Python backend runs for an engine of the cpu target.

The ``model.py`` of an exported model imports the class; Triton itself brings the module
``triton_python_backend_utils`` and calls the methods.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import BuilderError
from engines.loading import load
from engines.monitoring.settings import Monitored
from engines.serving.metrics import drift_families, recorder_families
from engines.serving.triton_metrics import TritonMetrics

__all__ = ["ENGINE", "KEY_PARAMETER", "KEY_VARIABLE", "TritonPythonModel"]

KEY_PARAMETER = "trusted_key"
KEY_VARIABLE = "INT8_TRUSTED_KEY"
ENGINE = "model.engine"  # in the version folder, its manifest beside it

_SHOWN_EVERY_S = 1.0  # a metric is a message to the server

Arrays = Mapping[str, NDArray[Any]]


class TritonPythonModel:
    """One instance: an engine of its own in a process of its own."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the engine; ``args`` say where the model's files lie."""
        self._triton = importlib.import_module("triton_python_backend_utils")
        config = json.loads(args["model_config"])
        given = {k: v["string_value"] for k, v in config.get("parameters", {}).items()}
        monitored = Monitored.from_parameters(given)
        instance, version = args["model_instance_name"], args["model_version"]
        self._recorder = monitored.recorder(f"{version}-{instance}")
        # Whoever can write to the repository can change the parameter, not the environment.
        self._engine = load(
            Path(args["model_repository"], version, ENGINE),
            trusted_key=os.environ.get(KEY_VARIABLE) or given.get(KEY_PARAMETER),
            record=self._recorder,
            drift=monitored.drift,
        )
        self._batches = config["max_batch_size"] > 0
        labels = {"model": args["model_name"], "version": version, "instance": instance}
        self._metrics = TritonMetrics(self._triton, labels) if monitored.to_parameters() else None
        self._shown_s = -_SHOWN_EVERY_S
        # Zeros are no requests: Triton runs each warm-up once, before the first.
        self._warm_ups = len(config.get("model_warmup", []))
        self._observers, self._engine.observers = self._engine.observers, ()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer what the dynamic batcher collected: one run, a part of it for each request."""
        if not self._warm_ups:
            self._engine.observers = self._observers
        self._warm_ups = max(0, self._warm_ups - 1)
        answers = self._answers(requests)
        if self._metrics is not None and time.monotonic() - self._shown_s >= _SHOWN_EVERY_S:
            self._show(self._metrics)
        return answers

    def _show(self, metrics: TritonMetrics) -> None:
        if self._engine.watch is not None:
            metrics.update(drift_families(self._engine.drift()))
        if self._recorder is not None:
            metrics.update(recorder_families(self._recorder.statistics()))
        self._shown_s = time.monotonic()

    def _answers(self, requests: Sequence[Any]) -> list[Any]:
        arrays = [self._read(request) for request in requests]
        if self._batches and len(requests) > 1:
            try:
                return [self._answer(part) for part in self._run_together(arrays)]
            except BuilderError:
                pass  # too much together, or one is to blame: alone, each gets its own answer
        return [self._run_alone(each) for each in arrays]

    def finalize(self) -> None:
        """Release the engine, after what waits to be recorded is written."""
        if self._recorder is not None:
            self._recorder.close()
        self._engine.close()

    def _read(self, request: Any) -> dict[str, NDArray[Any]]:
        # DLPack both ways: servers built before NumPy 2 misread its arrays and send nothing.
        get = self._triton.get_input_tensor_by_name
        return {s.name: np.from_dlpack(get(request, s.name)) for s in self._engine.inputs}

    def _run_together(self, arrays: Sequence[Arrays]) -> list[dict[str, NDArray[Any]]]:
        first = self._engine.inputs[0].name
        ends = np.cumsum([len(each[first]) for each in arrays])[:-1]
        names = [spec.name for spec in self._engine.inputs]
        outputs = self._engine({name: np.concatenate([a[name] for a in arrays]) for name in names})
        parts = {name: np.split(array, ends) for name, array in outputs.items()}
        return [{name: parts[name][i] for name in parts} for i in range(len(arrays))]

    def _run_alone(self, arrays: Arrays) -> Any:
        try:
            return self._answer(self._engine(arrays))
        except BuilderError as err:
            return self._triton.InferenceResponse(error=self._triton.TritonError(str(err)))

    def _answer(self, outputs: Arrays) -> Any:
        make = self._triton.Tensor.from_dlpack
        return self._triton.InferenceResponse(
            [make(name, np.asarray(array, order="C")) for name, array in outputs.items()]
        )
