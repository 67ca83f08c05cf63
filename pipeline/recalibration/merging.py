"""Statistics of production, alone or together with those that the engine was calibrated with.

Together by default. What a service records in some days leaves out what comes seldom (nights,
seasons, the other customer), and statistics of both merge exactly, so nothing that the engine was
calibrated for is lost. ``--replace`` is for data that were wrong from the start, e.g. pixels that
were not divided by 255: ranges of these stay too wide, however much is added.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from artefacts.errors import ArtefactError, DataError
from artefacts.words import counted
from calibrators import Samples, Statistics
from pipeline.calibration import Observation
from pipeline.parts import Part, digests_of, learning_part
from pipeline.recalibration.original import Original
from pipeline.screen import Screen

__all__ = ["Recorded", "check_fits", "joined", "observed", "recorded_parts", "restricted", "unseen"]

FEWEST_SAMPLES = 4  # two to learn from, two to judge by


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """Samples of production.

    Attributes:
        learned: to calibrate with and to be fitted to.
        judged: held back to compare the engines on; None where labelled samples are given for it.
    """

    learned: Samples
    judged: Part | None


def recorded_parts(samples: Samples, *, holds_out: bool) -> Recorded:
    """What is learned from, and what is judged by: by content, as a build with a promise divides.

    Args:
        samples: of production.
        holds_out: whether a part is held back.

    Raises:
        DataError: too few.
    """
    digests = digests_of(samples)
    found = len(set(digests))
    least = FEWEST_SAMPLES if holds_out else 1
    if found < least:
        raise DataError(
            f"samples {samples.path} hold {counted(found, 'distinct sample')}, expected at least "
            f"{least}: some calibrate and others compare the engines; record more"
            f"{' or give --eval-data' if holds_out else ''}"
        )
    whole = Part(samples, range(len(digests)), digests)
    if not holds_out:
        return Recorded(learned=whole, judged=None)
    learned, judged = learning_part(whole)
    return Recorded(learned=learned, judged=judged)


def unseen(samples: Samples, known: Collection[str]) -> Part:
    """Samples that were not calibrated with."""
    digests = digests_of(samples)
    rows = [row for row, digest in enumerate(digests) if digest not in known]
    return Part(samples, rows, digests)


def observed(
    original: Original,
    tensors: Sequence[str],
    samples: Samples,
    known: Collection[str],
    path: Path,
    batch: int,
    screen: Screen,
) -> Statistics:
    """Statistics of the samples that are not among the known.

    Raises:
        DataError: all of them are.
    """
    fresh = unseen(samples, known)
    if not len(fresh):
        raise DataError(
            f"samples {samples.path} hold nothing that {original.engine} was not calibrated with, "
            "expected new ones; record more, or take these alone with --replace"
        )
    if known:
        screen.add(
            f"{counted(len(fresh), 'sample')} to learn from of {samples.path} "
            f"{'is' if len(fresh) == 1 else 'are'} new"
        )
    Observation(original.prepared, list(tensors), fresh, path, batch).run(screen)
    return Statistics.load(path)


def check_fits(statistics: Statistics, path: Path, original: Original) -> None:
    """Refuse statistics of another graph or another preprocessing.

    Raises:
        ArtefactError: what they are of.
    """
    passport = original.manifest.passport
    if statistics.graph_hash != passport.graph_hash:
        raise ArtefactError(
            f"statistics {path} are of graph {statistics.graph_hash[:12]}, expected "
            f"{str(passport.graph_hash)[:12]} of engine {original.engine}; {_again(original)}"
        )
    spec = None if statistics.preprocess is None else dict(statistics.preprocess)
    wanted = None if passport.preprocess is None else dict(passport.preprocess)
    if spec != wanted:
        raise ArtefactError(
            f"statistics {path} were taken with preprocessing {spec or 'none'}, expected "
            f"{wanted or 'none'} as engine {original.engine} was calibrated with; "
            f"{_again(original)}"
        )


def restricted(
    statistics: Statistics, tensors: Collection[str], path: Path, original: Original
) -> Statistics:
    """The statistics of some tensors alone: a calibration cache observes more of them.

    Raises:
        ArtefactError: some are missing.
    """
    missing = sorted({*tensors} - {*statistics.tensors})
    if missing:
        raise ArtefactError(
            f"statistics {path} lack {len(missing)} of the {len(tensors)} tensors that "
            f"{original.engine} has ranges of (the first is {missing[0]}), expected all of them; "
            f"{_again(original)}"
        )
    wanted = sorted(tensors)
    return replace(
        statistics,
        tensors={name: statistics.tensors[name] for name in wanted},
        subsets=tuple({name: level[name] for name in wanted} for level in statistics.subsets),
    )


def joined(before: Statistics, new: Statistics, source: str) -> Statistics:
    """Both together, exactly.

    Raises:
        ArtefactError: they do not fit, or have samples in common.
    """
    shared = {*before.samples} & {*new.samples}
    if shared:
        raise ArtefactError(
            f"statistics {source} hold {len(shared)} of {len(new.samples)} samples that the engine "
            "was calibrated with already, expected new ones only, since none may count twice; "
            "observe those alone, give the samples themselves with --calib-data, or take these "
            "statistics alone with --replace"
        )
    return before.merge(new)


def _again(original: Original) -> str:
    """The command that makes statistics that fit."""
    manifest = original.manifest
    placement = manifest.passport.placement
    words = ["int8", "calibrate", "observe", str(original.prepared_path), "--data", "SAMPLES"]
    if manifest.passport.preprocess is not None:
        words += ["--preprocess", "SPEC"]
    if placement is not None:
        words += ["--profile", placement.profile]
    if manifest.build.get("cpu_isa") == "portable":
        words.append("--portable")
    settings = manifest.passport.settings or {}
    if (attention := settings.get("attention", "auto")) != "auto":
        words += ["--attention", attention]
    for pattern in settings.get("exclude", ()):
        words += ["--exclude", pattern]
    return f"observe them again: {shlex.join([*words, '-o', 'production.stats.npz'])}"
