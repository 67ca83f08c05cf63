"""What a build leaves: read from the files that it wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engines
from artefacts.errors import EngineError
from pipeline.job import Job, Paths
from pipeline.screen import Screen

__all__ = ["Result", "result_of", "summary_json"]


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


def summary_json(job: Job | None, screen: Screen | None, code: int, error: str | None) -> str:
    """One object for a program: what was written and measured, and what went wrong.

    Args:
        job: None where the flags were refused.
        screen: of the run, which keeps its warnings.
        code: with which the command ends.
        error: the sentence that ended it, if any.
    """
    told: dict[str, Any] = {
        "exit_code": code,
        "error": error,
        "warnings": [] if screen is None else screen.warnings,
        "engine": None,
        "files": [],
    }
    if job is not None and screen is not None:
        result = result_of(job.paths, since_s=screen.started_s)
        told["engine"] = None if result.engine is None else str(result.engine)
        told["files"] = [str(path) for path in result.files]
        told |= {
            "placement": result.placement,
            "accuracy": result.accuracy,
            "runtime": result.runtime,
            "promise": result.promise,
        }
    return json.dumps(told, indent=2)
