"""An engine is bound to what built it: the check of the release, and the command that mends it."""

from __future__ import annotations

import shlex
from pathlib import Path

from artefacts.errors import EngineError
from engines.manifest import Manifest

__all__ = ["check_version", "rebuild_command"]


def check_version(path: Path, manifest: Manifest, version: str) -> None:
    """Refuse an engine of another release than the one that is installed.

    Raises:
        EngineError: they differ, and the engine was not built to go on working.
    """
    built = manifest.library["version"]
    if built != version and not manifest.options.get("version_compatible"):
        raise EngineError(
            f"engine {path} was built with {manifest.library['name']} {built}, found {version}, "
            f"expected the same; {rebuild_command(path, manifest)}"
        )


def rebuild_command(path: Path, manifest: Manifest) -> str:
    """The remedy of every mismatch: the command that builds this engine for this machine."""
    return (
        f"build it again here: python build_engine.py --onnx "
        f"{shlex.quote(str(manifest.onnx['name']))} --engine {shlex.quote(str(path))} "
        f"--precision {manifest.precision} --target {manifest.target}"
    )
