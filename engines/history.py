"""Versions of an engine: which data, which ranges, which verdict, and which engine it came from.

A build is version 1 and carries no history: all of it is in its manifest. Recalibrating it makes
version 2 with two records, and so on. Two engines made of one are both its next version; their
records name the engine that they came from.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from artefacts.files import digest_of, write_atomic
from artefacts.groups import finish_group, folder_lock
from engines.manifest import Manifest, manifest_path, read_manifest
from engines.passport import VersionRecord

__all__ = ["MOST_VERSIONS", "add_version", "versions_of"]

MOST_VERSIONS = 64
"""Records that a manifest keeps; the oldest go."""


def versions_of(manifest: Manifest) -> tuple[VersionRecord, ...]:
    """Every version up to this engine, oldest first; at least its own."""
    return manifest.passport.history or (_record(manifest, 1, came_from=None, how="built"),)


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
    finish_group(engine)
    with folder_lock(Path(engine).parent):
        manifest = read_manifest(engine)
        earlier = versions_of(before)
        record = _record(
            manifest,
            earlier[-1].version + 1,
            came_from=before.engine_sha256,
            how=how,
            verdict=verdict,
        )
        history = (*earlier, record)[-MOST_VERSIONS:]
        changed = replace(manifest.passport, **passport, history=history)
        manifest = replace(manifest, passport=changed)
        write_atomic(manifest_path(engine), manifest.to_bytes())
    return manifest


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
