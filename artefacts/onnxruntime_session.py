"""A session of onnxruntime, whatever it loses on the way there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from artefacts.libraries import require

__all__ = ["open_session"]

_CPU = ("CPUExecutionProvider",)
_LOST = "Failed to find node output"


def open_session(source: str | bytes, options: Any, providers: Sequence[Any] = _CPU) -> Any:
    """A session, with all optimizations of ``options`` that leave the model its outputs.

    Of two convolutions that are added, onnxruntime 1.32 lets one add the other's result in place.
    Where they have groups of one input and two outputs it does so with an output of the model, too,
    and then finds no such output: FastViT's last block, where the first convolution is watched.
    Without its own layout of convolutions it does not.

    Args:
        source: a file, or a model in bytes.
        options: of the session; its level is lowered where that is needed.
        providers: of onnxruntime, in order.

    Raises:
        Exception: those of ``onnxruntime_errors``, where the model is refused.
    """
    runtime = require("onnxruntime", extra="cpu")
    fallback = int(len(providers) > 1)  # to the same provider it would only print that it tries

    def session() -> Any:
        return runtime.InferenceSession(
            source, options, providers=list(providers), enable_fallback=fallback
        )

    try:
        return session()
    except RuntimeError as err:
        if _LOST not in str(err):
            raise
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return session()
