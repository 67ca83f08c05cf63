"""A compiled blob, running on this CPU."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import EngineError, RequestError
from engines.openvino_library import (
    DEVICE,
    core,
    library_version,
    port_index,
    reason,
    settings,
)
from engines.tensors import TensorSpec

__all__ = ["OpenvinoRunner"]


class OpenvinoRunner:
    """One infer request on an imported blob."""

    def __init__(
        self, compiled: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        """Take a compiled model; ``load`` makes one from bytes."""
        self._compiled = compiled
        self._specs = (tuple(inputs), tuple(outputs))
        self._request = compiled.create_infer_request()
        self._inputs = {s.name: port_index(compiled.inputs, s.name) for s in inputs}
        self._outputs = [(s.name, port_index(compiled.outputs, s.name)) for s in outputs]

    @classmethod
    def load(
        cls,
        data: bytes,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        threads: int | None,
        precision: str,
    ) -> OpenvinoRunner:
        """Import a blob whose hash was checked.

        Raises:
            EngineError: OpenVINO refuses the bytes.
        """
        try:
            compiled = core().import_model(io.BytesIO(data), DEVICE, settings(threads, precision))
        except RuntimeError as err:
            raise EngineError(
                f"engine is refused by OpenVINO {library_version()} ({reason(err)}), expected a "
                "blob that this release exported on this kind of CPU; build it again here"
            ) from err
        return cls(compiled, inputs, outputs)

    def adopt(self, value: Any) -> None:
        """Nothing: numpy reads CPU tensors itself."""

    def run(
        self, arrays: Mapping[str, NDArray[Any]], *, copy: bool, on_device: bool = True
    ) -> dict[str, NDArray[Any]]:
        """Infer checked arrays. Without ``copy`` the next call overwrites what is returned."""
        request = {self._inputs[name]: array for name, array in arrays.items()}
        try:
            results = self._request.infer(request, share_inputs=True, share_outputs=True)
        except RuntimeError as err:
            raise RequestError(
                f"request fails in OpenVINO ({reason(err)}), expected shapes that fit each "
                "other; correct the arrays"
            ) from err
        if copy:
            return {name: np.array(results[port]) for name, port in self._outputs}
        return {name: results[port] for name, port in self._outputs}

    def clone(self) -> OpenvinoRunner:
        """Another infer request on the same compiled model, for another thread."""
        return OpenvinoRunner(self._compiled, *self._specs)

    def close(self) -> None:
        """Drop the request and the model; memory goes with the last request of a model."""
        self._request = self._compiled = None
