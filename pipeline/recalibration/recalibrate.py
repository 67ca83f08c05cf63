"""The steps of a recalibration: statistics, ranges that moved, a new engine, a decision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import calibrators
import engines
from artefacts.errors import BuilderError, DataError
from artefacts.files import make_folder
from artefacts.words import counted
from engines.serving.signing import signature_path
from graphs.tensor_data import outline
from pipeline.calibration import ranges_by
from pipeline.checked_first import Ready, check_first
from pipeline.input_summaries import input_summaries
from pipeline.job import Job
from pipeline.keywords import job_of
from pipeline.recalibration.asked import Asked
from pipeline.recalibration.comparison import Compared, Field, compare
from pipeline.recalibration.decision import Decision, decide, facts_of
from pipeline.recalibration.merging import (
    Recorded,
    check_fits,
    joined,
    observed,
    recorded_parts,
    restricted,
    unseen,
)
from pipeline.recalibration.moves import Move, moves, table_of
from pipeline.recalibration.original import Original, original_of, output_of
from pipeline.samples import evaluation_samples, given_samples
from pipeline.screen import Screen
from pipeline.settings import flags_of
from pipeline.steps import placing, run_checked

__all__ = ["STEPS", "recalibrate"]

STEPS = 7  # five of the build, one before and one behind them
SHOWN_MOVES = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class _Data:
    """What the new engine is calibrated with.

    Attributes:
        statistics: all of them.
        new_samples: how many are of production.
        recorded: samples of production; None where there are only statistics.
        moves: of the ranges; empty where it is not known.
    """

    statistics: calibrators.Statistics
    new_samples: int
    recorded: Recorded | None
    moves: tuple[Move, ...]


def recalibrate(asked: Asked, screen: Screen) -> Decision:
    """Make a new engine of an old one and new data, and compare the two; nothing else changes.

    Args:
        asked: the engine and the data.
        screen: where it is told.

    Returns:
        The decision, which was written beside the new engine.

    Raises:
        InputError: the engine, a file of its build or the new data cannot be used.
        BuilderError: whatever else ends a build.
    """
    screen.start(f"recalibrate {asked.engine} with {asked.source}")
    original = original_of(asked.engine)
    output = output_of(asked, original)
    with _job(asked, original, output) as job:
        ready = check_first(job, original.prepared)
        data = _gather(asked, original, ready, screen)
        merged = job.paths.beside(".stats.npz")
        data.statistics.save(merged)
        # The model is the job's from here on, and not held beside what is made of it.
        original = replace(original, prepared=outline(original.prepared))
        calibrate = replace(ready.job.calibrate, statistics=merged)
        run_checked(replace(ready, job=replace(ready.job, calibrate=calibrate)), screen)
        screen.start(f"compare    {asked.engine} and {output}")
        compared, unmeasured = _compare(original, data, job, screen)
        return _conclude(asked, original, data, job, screen, (compared, unmeasured))


@contextmanager
def _job(asked: Asked, original: Original, output: Path) -> Iterator[Job]:
    """The build of the old engine again, of new data."""
    flags: dict[str, Any] = flags_of(original.manifest) | {
        "calib_data": asked.calib_data,
        "statistics": asked.statistics,
        "eval_data": asked.eval_data,
        "task": asked.task,
        "force": asked.force,
        # Said in the decision instead, where it ends no run.
        "allow_runtime_gap": True,
    }
    if asked.calib_data is None:
        flags["improve"] = 0
    with job_of(original.prepared_path, output, flags) as job:
        yield replace(job, data=replace(job.data, holds_out=asked.eval_data is None))


def _gather(asked: Asked, original: Original, ready: Ready, screen: Screen) -> _Data:
    """Statistics of the new data, with those before it unless they are to be left out."""
    job = ready.job
    if not asked.replace:
        original.check_mergeable()
    tensors = placing(job, ready.target, ready.isa, original.prepared)().tensors
    recorded = None
    if asked.calib_data is not None:
        given = given_samples(job.data, original.prepared)
        recorded = recorded_parts(given, holds_out=job.data.holds_out)
    before = original.known_statistics() if asked.replace else original.statistics()
    if before is not None:
        own = job.paths.beside(".stats.npz")
        before = restricted(before, tensors, own, original)
    if asked.statistics is not None:
        new = calibrators.Statistics.load(asked.statistics)
        check_fits(new, asked.statistics, original)
        new = restricted(new, tensors, asked.statistics, original)
    else:
        assert recorded is not None
        path = job.paths.beside(".production.stats.npz")
        make_folder(path)
        known = () if asked.replace or before is None else before.samples
        new = observed(original, tensors, recorded.learned, known, path, job.data.batch, screen)
    whole = new if asked.replace or before is None else joined(before, new, asked.source)
    moved = () if before is None else _moved(job.calibrate.method, before, whole)
    _say(moved, new, whole, screen)
    return _Data(statistics=whole, new_samples=len(new.samples), recorded=recorded, moves=moved)


def _moved(
    method: str, before: calibrators.Statistics, after: calibrators.Statistics
) -> tuple[Move, ...]:
    return moves(ranges_by(method, before), ranges_by(method, after))


def _say(
    moved: tuple[Move, ...],
    new: calibrators.Statistics,
    whole: calibrators.Statistics,
    screen: Screen,
) -> None:
    count = sum(move.notable for move in moved)
    samples = counted(len(new.samples), "new sample")
    screen.add(f"{samples}, {len(whole.samples):,} with those before")
    if moved:
        screen.add(f"{count} of {counted(len(moved), 'range')} moved by more than 1 %")
    if count:
        notable = [move for move in moved if move.notable][:SHOWN_MOVES]
        screen.add(*(f"  {line}" for line in table_of(notable)))


def _compare(
    original: Original, data: _Data, job: Job, screen: Screen
) -> tuple[Compared | None, str]:
    """Both engines on samples that calibrated neither; or why they were not compared."""
    known = {*data.statistics.samples, *(original.manifest.passport.calibration_samples or ())}
    if job.data.eval_data is not None:
        samples: calibrators.Samples = evaluation_samples(job.data, original.prepared)
    elif data.recorded is None or data.recorded.judged is None:
        return None, (
            "there are statistics and no samples; give --eval-data with labelled samples, or "
            "--calib-data with recorded ones"
        )
    else:
        samples = unseen(data.recorded.judged, known)
        if not len(samples):
            return None, (
                f"all of {data.recorded.judged.path} that was held back is calibrated with; give "
                "samples that the statistics have not seen, or --eval-data"
            )
    field = Field(
        prepared=original.prepared,
        path=original.prepared_path,
        samples=samples,
        labelled=job.data.eval_data is not None,
        data=job.data,
    )
    try:
        return compare(original.engine, job.paths.engine, field, screen), ""
    except DataError:
        if field.labelled:
            raise
        return None, "what it answers cannot be compared without labels; give --eval-data"
    except BuilderError as err:  # one of them runs here no more, or not at all
        return None, str(err)


def _conclude(
    asked: Asked,
    original: Original,
    data: _Data,
    job: Job,
    screen: Screen,
    found: tuple[Compared | None, str],
) -> Decision:
    """Write the decision, and the history into the manifest of the new engine."""
    output = job.paths.engine
    verdict, why = decide(*found, gap=_gap(engines.read_manifest(output).measured))
    manifest = engines.add_version(
        output, original.manifest, how=asked.how, verdict=verdict, **_kept(original, data, output)
    )
    signed = signature_path(original.engine).is_file()
    decision = Decision(
        verdict=verdict,
        why=why,
        old=facts_of(original.engine, original.manifest, signed=signed),
        new=facts_of(output, manifest, signed=False),
        how=asked.how,
        source=asked.source,
        new_samples=data.new_samples,
        compared=found[0],
        moves=data.moves,
        notes=_notes(original, manifest, data, found[0]),
    )
    written = decision.write(job.paths)
    screen.add(f"{verdict}: {why}", *decision.notes, *(f"wrote {path}" for path in written))
    return decision


def _kept(original: Original, data: _Data, output: Path) -> Mapping[str, Any]:
    """What the build could not know: names of classes, and what requests are held against."""
    passport, made = original.manifest.passport, engines.read_manifest(output).passport
    recorded = data.recorded
    summaries = passport.inputs if recorded is None else input_summaries(recorded.learned)
    return {"labels": made.labels or passport.labels, "inputs": summaries}


def _gap(measured: Mapping[str, Any]) -> list[str]:
    """How far outputs are from the engine's own graph, where rounding does not explain it."""
    runtime = measured.get("runtime", {})
    if runtime.get("explained_by_rounding") is not False:
        return []
    worst = runtime["outputs"][0]
    return [f"output {worst['output']} is {worst['sqnr_db']:.1f} dB from it"]


def _notes(
    original: Original, made: engines.Manifest, data: _Data, compared: Compared | None
) -> tuple[str, ...]:
    before, after = original.manifest.passport, made.passport
    notes = []
    if before.improvement_samples is not None and after.improvement_samples is None:
        notes.append(
            f"the old engine was improved on {before.improvement_samples} samples and the new one "
            "is as calibrated, since there are no samples to improve it on; give --calib-data"
        )
    if data.recorded is None and before.inputs is not None:
        notes.append(
            "what engine.drift compares requests with are the samples of the old engine still, "
            "since statistics do not say what inputs look like"
        )
    if before.promise is not None:
        notes.append(
            f"the promise {before.promise.flag} was not searched for again: the layers that it "
            "left in float stay in float; build with it to have it kept"
        )
    if compared is not None:
        notes.append(
            "on the data that the old engine was calibrated with neither was measured; where "
            "they matter, give labelled samples of both kinds with --eval-data"
        )
    return tuple(notes)
