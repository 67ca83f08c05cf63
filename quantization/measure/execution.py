"""How models are run where a step needs activations: one type, and onnxruntime behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from artefacts.errors import ModelError
from artefacts.libraries import require
from artefacts.litter import scratch_folder
from artefacts.onnxruntime_errors import onnxruntime_errors, refusal
from artefacts.onnxruntime_session import open_session
from artefacts.runs import stoppable
from graphs.comparable import before_scores, with_outputs
from graphs.external_data import INLINE_BELOW_BYTES, save_external
from graphs.tensor_data import LARGE_BYTES, weight_bytes, without_data

__all__ = [
    "Arrays",
    "Load",
    "Run",
    "is_large",
    "load_int8",
    "load_int8_quickly",
    "load_node",
    "load_onnxruntime",
]

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Run = Callable[[Arrays], dict[str, Array]]
"""Inputs of one batch in, all outputs of the model out."""
Load = Callable[[onnx.ModelProto], Run]
"""A model in, the function that runs it out."""


def load_onnxruntime(
    model: onnx.ModelProto | Path,
    *,
    optimize: bool = True,
    integers: bool = True,
    arena: bool = True,
    outputs: Sequence[str] | None = None,
    scores: bool = True,
) -> Run:
    """A model on onnxruntime's CPU provider.

    Args:
        model: any model, or its path. A large one is read from a file that lives as long as the
            loading.
        optimize: False runs the graph as it is written, Q/DQ pairs in float arithmetic. Optimised,
            onnxruntime replaces them by the integer kernels of this processor, which saturate
            where it has no VNNI instructions.
        integers: False optimises everything but that: Q/DQ pairs stay in float arithmetic.
        arena: False gives memory back as soon as a tensor goes. An arena keeps the most that it
            ever held, and what a run gave out stands in it.
        outputs: tensors of a model to give out instead of its outputs.
        scores: False gives out the logits, or the logarithms, where they end in scores
            (graphs.comparable.before_scores).

    Raises:
        ModelError: onnxruntime refuses the model, or fails while running it.
        MissingLibraryError: onnxruntime is not installed.
    """
    runtime = require("onnxruntime", extra="cpu")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # its warnings go to stderr past Python; errors are raised
    # Idle workers would otherwise spin on the cores that numpy computes on between runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = arena and not is_large(model)
    # A weight is dequantized when it is read: in the usual order all of them are, before the rest.
    options.execution_order = runtime.ExecutionOrder.PRIORITY_BASED
    if not integers:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if not optimize:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    errors = onnxruntime_errors()
    what = f"model {model}" if isinstance(model, Path) else f"graph {model.graph.name!r}"
    try:
        with _source(model, outputs, scores=scores) as source:
            session = open_session(source, options)
    except errors as err:
        raise ModelError(refusal(what, "load", err)) from err
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Arrays) -> dict[str, Array]:
        try:
            with stoppable() as stop:
                values = session.run(names, dict(feeds), stop)
        except errors as err:
            raise ModelError(refusal(what, "run", err)) from err
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    return run


@contextmanager
def _source(
    model: onnx.ModelProto | Path, outputs: Sequence[str] | None, *, scores: bool
) -> Iterator[str | bytes]:
    """What a session is made of."""
    if isinstance(model, Path):
        yield str(model)
    elif not is_large(model):
        yield _giving_out(model, outputs, scores=scores).SerializeToString()
    else:
        with scratch_folder("model") as folder:
            # One tensor after another: nothing is copied or serialized as a whole, and onnxruntime
            # maps them.
            light, large = without_data(model, INLINE_BELOW_BYTES)
            path = folder / "model.onnx"
            held = {tensor.name: tensor for tensor in large}
            save_external(_giving_out(light, outputs, scores=scores), path, elsewhere=held)
            yield str(path)


def _giving_out(
    model: onnx.ModelProto, outputs: Sequence[str] | None, *, scores: bool
) -> onnx.ModelProto:
    shown = model if outputs is None else with_outputs(model, outputs)
    return shown if scores else before_scores(shown)


def is_large(model: onnx.ModelProto | Path) -> bool:
    """Whether it is read from a file, whose bytes are not held twice while a session is made."""
    if isinstance(model, Path):
        if not model.is_file() or model.stat().st_size > LARGE_BYTES:
            return model.is_file()
        with suppress(DecodeError):  # which the runtime has a sentence for
            return is_large(onnx.load(model, load_external_data=False))
        return False
    return weight_bytes(model) > LARGE_BYTES


def load_node(model: onnx.ModelProto) -> Run:
    """A model of one node, whose outputs are kept for many samples and given up one by one."""
    return load_onnxruntime(model, arena=False)


def load_int8(
    model: onnx.ModelProto | Path, *, outputs: Sequence[str] | None = None, scores: bool = True
) -> Run:
    """A Q/DQ model as it is written, in float arithmetic and without optimizations.

    ``outputs`` and ``scores`` as of :func:`load_onnxruntime`.
    """
    return load_onnxruntime(model, optimize=False, outputs=outputs, scores=scores)


def load_int8_quickly(model: onnx.ModelProto, *, outputs: Sequence[str] | None = None) -> Run:
    """:func:`load_int8` but for the order of sums, in two thirds of the time.

    Another order moves a value across a rounding step here and there, as every engine does.
    """
    return load_onnxruntime(model, integers=False, outputs=outputs)
