"""A plan that was built a moment ago, looked into on the same GPU before it is written."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from artefacts.errors import ModelError
from engines.options import BuildOptions
from engines.tensorrt.library import bare_context
from engines.tensors import TensorSpec

__all__ = ["inspect_plan"]

logger = logging.getLogger(__name__)

# What NVIDIA's bindings raise: a null pointer, a class or member that is not there, no JSON.
BROKEN = (AttributeError, RuntimeError, TypeError, ValueError)


def inspect_plan(
    trt: Any, log: Any, data: bytes, options: BuildOptions, outputs: Sequence[TensorSpec]
) -> dict[str, Any] | None:
    """The engine inspector's JSON at the usual shapes; ``None`` where it cannot be had.

    A plan may have taken hours: an inspector that is missing or broken is no reason to lose it.

    Raises:
        ModelError: the size of an output depends on the data.
    """
    try:
        runtime = trt.Runtime(log)
        runtime.engine_host_code_allowed = True  # version-compatible plans carry host code
        if options.dla_core is not None:
            runtime.DLA_core = options.dla_core
        engine = runtime.deserialize_cuda_engine(data)
        context = bare_context(trt, engine)
        # Without shapes the inspector has no formats for what is dynamic.
        for name, shape in (options.profiles[0].opt if options.profiles else {}).items():
            context.set_input_shape(name, tuple(shape))
        shapes = {spec.name: tuple(context.get_tensor_shape(spec.name)) for spec in outputs}
    except BROKEN as err:
        logger.warning("the plan cannot be inspected: %s", "; ".join(log.take_errors()) or err)
        return None
    _check_sizes(shapes)
    try:
        inspector = engine.create_engine_inspector()
        inspector.execution_context = context
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        found = json.loads(text)
    except BROKEN as err:
        logger.warning(
            "the engine inspector tells nothing: %s", "; ".join(log.take_errors()) or err
        )
        return None
    return found if isinstance(found, dict) else None


def _check_sizes(shapes: dict[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if any(size < 0 for size in shape):
            raise ModelError(
                f"output {name!r} has shape {shape} although all inputs have theirs: its size "
                "depends on the data (NonMaxSuppression, NonZero), expected one that follows from "
                "the inputs; end the model before that node, or use a plugin with a fixed size"
            )
