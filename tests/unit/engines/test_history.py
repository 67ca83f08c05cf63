"""Versions of an engine in its manifest: counted from 1, bounded, and old manifests have them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from artefacts.errors import EngineError
from engines import Manifest, Passport, add_version, read_manifest, versions_of
from engines.__main__ import describe
from engines.history import MOST_VERSIONS
from engines.manifest import manifest_path
from tests.unit.engines.test_manifest import manifest


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def calibrated(name: str, *samples: str) -> Manifest:
    passport = Passport(
        ranges_sha256=sha256(f"ranges {name}"),
        statistics_sha256=sha256(f"statistics {name}"),
        samples=len(samples),
        calibration_samples=samples,
    )
    return manifest(engine_sha256=sha256(name), passport=passport)


def test_a_manifest_without_history_is_version_1() -> None:
    found = Manifest.from_bytes(calibrated("first", "b", "a").to_bytes())
    assert found.passport.history is None
    (record,) = versions_of(found)
    assert (record.version, record.how, record.came_from, record.verdict) == (
        1,
        "built",
        None,
        None,
    )
    assert (record.engine_sha256, record.samples) == (sha256("first"), 2)
    assert record.samples_sha256 == sha256("a\nb")
    assert record.ranges_sha256 == sha256("ranges first")


def test_recalibrating_appends(tmp_path: Path) -> None:
    path = tmp_path / "m.engine"
    before = calibrated("first", "a")
    for number, name in enumerate(("second", "third"), 2):
        manifest_path(path).write_bytes(calibrated(name, "a", "b").to_bytes())
        written = add_version(path, before, how="merged", verdict="take it", labels=("one",))
        assert read_manifest(path) == written
        assert written.passport.labels == ("one",)
        records = versions_of(written)
        assert [record.version for record in records] == [*range(1, number + 1)]
        assert records[-1].came_from == before.engine_sha256 == records[-2].engine_sha256
        assert (records[-1].how, records[-1].verdict) == ("merged", "take it")
        assert records[:-1] == versions_of(before)
        before = written
    lines = [text for title, text in describe(before) if title == "version"]
    assert [line.split(",")[0] for line in lines] == ["1", "2", "3"]
    assert f"from engine {sha256('second')[:12]}…: take it" in lines[2]


def test_history_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "m.engine"
    before = calibrated("0", "a")
    for number in range(1, MOST_VERSIONS + 3):
        manifest_path(path).write_bytes(calibrated(str(number), "a").to_bytes())
        before = add_version(path, before, how="replaced", verdict="")
    records = versions_of(before)
    assert len(records) == MOST_VERSIONS
    assert records[-1].version == MOST_VERSIONS + 3
    assert records[0].version == 4


def test_a_longer_history_than_the_schema_allows_is_refused() -> None:
    record = versions_of(calibrated("first", "a"))[0]
    history = tuple(dataclasses.replace(record, version=n + 1) for n in range(MOST_VERSIONS + 1))
    with pytest.raises(EngineError, match="passport/history"):
        manifest(passport=Passport(history=history)).to_bytes()


def test_a_record_of_another_form_stays_as_it_is() -> None:
    written = {"history": [{"version": 7}]}
    found = Passport.from_json(written)
    assert found.history is None
    assert json.loads(json.dumps(found.to_json())) == written
