"""What a manifest gains after the build: measurements, and versions of its engine.

A version says which data, which ranges, which verdict, and which engine it came from. A build is
version 1 and carries no history: all of it is in its manifest. Recalibrating it makes version 2
with two records, and so on. Two engines made of one are both its next version; their records name
the engine that they came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from artefacts.files import digest_of
from engines.manifest import Manifest, change_manifest
from engines.passport import VersionRecord

__all__ = ["MOST_VERSIONS", "add_measured", "add_version", "versions_of"]

MOST_VERSIONS = 64
"""Records that a manifest keeps; the oldest go."""


def versions_of(manifest: Manifest) -> tuple[VersionRecord, ...]:
    """Every version up to this engine, oldest first; at least its own."""
    return manifest.passport.history or (_record(manifest, 1, came_from=None, how="built"),)


def add_measured(engine: str | Path, **results: Mapping[str, Any]) -> Manifest:
    """Add results, e.g. ``accuracy={"top1": 0.98}``, to the manifest beside an engine.

    Raises:
        EngineError: the manifest cannot be read, or a result is no plain JSON.
    """
    return change_manifest(
        engine, lambda found: replace(found, measured={**found.measured, **results})
    )


def add_version(
    engine: str | Path, before: Manifest, *, how: str, verdict: str, **passport: Any
) -> Manifest:
    """Write into an engine's manifest that it came from another by recalibration.

    Args:
        engine: the new engine; its manifest lies beside it.
        before: manifest of the engine that was recalibrated.
        how: ``merged`` or ``replaced``.
        verdict: of the comparison of the two.
        passport: further fields of the passport to set.

    Raises:
        EngineError: the manifest cannot be read or written.
    """
    earlier = versions_of(before)
    version, came_from = earlier[-1].version + 1, before.engine_sha256

    def recorded(found: Manifest) -> Manifest:
        record = _record(found, version, came_from=came_from, how=how, verdict=verdict)
        history = (*earlier, record)[-MOST_VERSIONS:]
        return replace(found, passport=replace(found.passport, **passport, history=history))

    return change_manifest(engine, recorded)


def _record(
    manifest: Manifest,
    version: int,
    *,
    came_from: str | None,
    how: str,
    verdict: str | None = None,
) -> VersionRecord:
    passport = manifest.passport
    digests = passport.calibration_samples
    return VersionRecord(
        version=version,
        engine_sha256=manifest.engine_sha256,
        created=manifest.created,
        came_from=came_from,
        how=how,
        samples=passport.samples,
        samples_sha256=None if digests is None else digest_of(digests),
        statistics_sha256=passport.statistics_sha256,
        ranges_sha256=passport.ranges_sha256,
        verdict=verdict,
    )
