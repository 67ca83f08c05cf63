"""What a build leaves: read from the files that it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engines
from artefacts.errors import EngineError
from pipeline.job import Paths

__all__ = ["Result", "result_of"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished build.

    Attributes:
        engine: its file; None where the job ended before (``stop_after``, ``shard``).
        files: everything that was written, in the order of the steps.
        manifest: of the engine.
    """

    engine: Path | None
    files: tuple[Path, ...]
    manifest: engines.Manifest | None

    @property
    def placement(self) -> Mapping[str, Any]:
        """Which layers read INT8, their share of the work, and why others stay in float."""
        return dict(self._passport.get("placement") or {})

    @property
    def accuracy(self) -> Mapping[str, Any]:
        """Figures of the float model, the INT8 graph and the engine, by name."""
        return dict(self._measured.get("accuracy") or {})

    @property
    def runtime(self) -> Mapping[str, Any]:
        """The engine against its own graph."""
        return dict(self._measured.get("runtime") or {})

    @property
    def promise(self) -> Mapping[str, Any] | None:
        """The promise and how it was kept; None where none was given."""
        return self._measured.get("promise")

    def load(self, **options: Any) -> engines.Engine:
        """The engine, running; arguments as for ``engines.load``.

        Raises:
            EngineError: the job ended before an engine was built, or it does not load here.
        """
        if self.engine is None:
            raise EngineError(
                "no engine was built, since the job ended before, expected a job without "
                "stop_after and shard; build again without them"
            )
        return engines.load(self.engine, **options)

    @property
    def _passport(self) -> Mapping[str, Any]:
        return {} if self.manifest is None else self.manifest.passport.to_json()

    @property
    def _measured(self) -> Mapping[str, Any]:
        return {} if self.manifest is None else self.manifest.measured


def result_of(paths: Paths, *, since_s: float) -> Result:
    """What the run that began at ``since_s`` left."""
    files = tuple(paths.written(since_s=since_s))
    built = paths.engine in files
    return Result(
        engine=paths.engine if built else None,
        files=files,
        manifest=engines.read_manifest(paths.engine) if built else None,
    )
