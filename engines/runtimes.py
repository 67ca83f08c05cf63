"""All runtimes by the name of their target: the one place that lists them."""

from __future__ import annotations

from dataclasses import fields, replace

from artefacts.errors import InputError
from engines.openvino.runtime import OPENVINO
from engines.options import BuildOptions, resolve_target
from engines.runtime import Runtime
from engines.tensorrt.runtime import TENSORRT, TENSORRT_RTX

__all__ = ["RUNTIMES", "runtime_of", "settle_target"]

RUNTIMES = {"cpu": OPENVINO, "tensorrt": TENSORRT, "tensorrt-rtx": TENSORRT_RTX}


def runtime_of(target: str) -> Runtime:
    """The runtime of a target, ``auto`` resolved.

    Raises:
        InputError: no such target.
    """
    return RUNTIMES[resolve_target(target)]


def settle_target(options: BuildOptions) -> BuildOptions:
    """The same options with ``auto`` resolved, if the target has all of them.

    Raises:
        InputError: an option would have no effect.
    """
    target = resolve_target(options.target)
    chosen = RUNTIMES[target]
    for name in (entry.name for entry in fields(options)):
        targets = [each for each, runtime in RUNTIMES.items() if name in runtime.options]
        found = getattr(options, name)
        given = found is not None and found is not False and found != () and found != {}
        if targets and given and target not in targets:
            raise InputError(
                f"option {name} is {found!r} with target {target}, expected it only with "
                f"{' or '.join(targets)}; drop it or choose another target"
            )
    tf32 = options.tf32 if chosen.tf32 else None
    return replace(options, target=target, tf32=tf32)  # type: ignore[arg-type]
