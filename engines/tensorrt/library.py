"""TensorRT and TensorRT-RTX: the one file that imports them, and their log.

Everything else takes the module as an argument: one code path serves both libraries and every
generation, and asks ``hasattr`` what this one can do.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import cache
from typing import Any

from artefacts.errors import UnsupportedError
from artefacts.libraries import require
from engines.environment import gpu_facts
from engines.tensorrt.plan_log import LAYERS_TITLE

__all__ = [
    "MODULES",
    "bare_context",
    "check_gpu",
    "enum_member",
    "is_strongly_typed",
    "tensorrt",
    "tensorrt_log",
    "title",
]

logger = logging.getLogger("engines.tensorrt")

KEPT_ERRORS = 20
_PARSING = "Parsing node: "

# target → (module, extra that installs it)
MODULES = {"tensorrt": ("tensorrt", "tensorrt"), "tensorrt-rtx": ("tensorrt_rtx", "rtx")}


def tensorrt(target: str) -> Any:
    """The library of a target.

    Raises:
        MissingLibraryError: it is not installed.
    """
    module, extra = MODULES[target]
    return require(module, extra=extra)


def title(trt: Any) -> str:
    """How messages name the library; the module's own name may be that of its bindings."""
    name = "TensorRT-RTX" if hasattr(trt, "ComputeCapability") else "TensorRT"
    return f"{name} {trt.__version__}"


def check_gpu(target: str, purpose: str, device: int = 0) -> dict[str, str]:
    """Facts of the GPU that a step cannot do without.

    Raises:
        UnsupportedError: there is no GPU or no driver.
    """
    facts = gpu_facts(device)
    if facts is None:
        raise UnsupportedError(
            f"target {target} finds no NVIDIA GPU on this machine, expected one to {purpose}; "
            "use the machine that the engine is for, or build with --target cpu"
        )
    return facts


@cache
def tensorrt_log(trt: Any) -> Any:
    """The TensorRT logger of this process, which writes to ``logging``.

    One, never freed: TensorRT keeps the first it is given for everything it has no other for.
    It remembers the last errors, the builder's lists of layers in ``.layers`` and in ``.parsing``
    the node that the parser read last, as ``name [operator]``.
    """
    severity = trt.ILogger.Severity

    class Log(trt.ILogger):  # type: ignore[misc]  # the base exists once the library is loaded
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 classes crash without it
            self.layers: list[str] = []
            self.parsing = ""
            self._errors: deque[str] = deque(maxlen=KEPT_ERRORS)

        def take_errors(self) -> list[str]:
            """What went wrong since the last question."""
            errors = list(self._errors)
            self._errors.clear()
            return errors

        def log(self, level: Any, message: str) -> None:
            if level in (severity.INTERNAL_ERROR, severity.ERROR):
                self._errors.append(message)
                logger.info("%s", message)  # the caller raises with it; a warning would repeat it
            elif level == severity.WARNING:
                logger.info("%s", message)
            else:
                if message.startswith(LAYERS_TITLE):
                    self.layers.append(message)
                elif message.startswith(_PARSING):
                    self.parsing = message.removeprefix(_PARSING)
                logger.debug("%s", message)

    return Log()


def bare_context(trt: Any, engine: Any) -> Any:
    """An execution context without memory of its own; ``None`` where it cannot be made.

    Its own would be as much for each context, whatever its shapes: every clone, every CUDA graph.
    """
    strategies = getattr(trt, "ExecutionContextAllocationStrategy", None)
    if strategies is None:  # before TensorRT 10
        return engine.create_execution_context_without_device_memory()
    return engine.create_execution_context(strategies.USER_MANAGED)


def is_strongly_typed(trt: Any) -> bool:
    """Whether this release can take types from the graph; the builder chooses them before 9."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def enum_member(enum: Any, name: str, what: str) -> Any:
    """Member of a TensorRT enum by name; numbers move between releases, names do not.

    Raises:
        UnsupportedError: this release has no such member.
    """
    member = getattr(enum, name, None)
    if member is None:
        known = ", ".join(sorted(enum.__members__))
        raise UnsupportedError(
            f"{what} {name} is unknown to this TensorRT, expected one of {known}; choose one"
        )
    return member
