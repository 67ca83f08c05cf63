"""What came of a recalibration, as a person and as a program read it; nothing is done by it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from artefacts.files import write_atomic
from artefacts.texts import printable
from artefacts.words import counted
from engines import Manifest, versions_of
from pipeline.paths import Paths
from pipeline.recalibration.comparison import FEWEST_SAMPLES, Compared
from pipeline.recalibration.moves import Move, table_of

__all__ = ["KEEP", "TAKE", "UNTOLD", "Decision", "EngineFacts", "decide", "facts_of"]

TAKE, KEEP, UNTOLD = "take the new one", "keep the old one", "cannot be told"


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """One of the two engines.

    Attributes:
        path: of its file.
        version: 1 for a build, one more with each recalibration.
        sha256: of its file.
        samples: that it was calibrated with.
        improved_on: how many its INT8 was fitted to; None where it was not.
        signed: whether a signature lies beside it.
    """

    path: Path
    version: int
    sha256: str
    samples: int | None
    improved_on: int | None
    signed: bool


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is recommended, by what, and what to do then.

    Attributes:
        verdict: ``take the new one``, ``keep the old one`` or ``cannot be told``.
        why: a sentence.
        old: the engine in service.
        new: the engine that was made.
        how: ``merged`` or ``replaced``.
        source: where the new data lies.
        new_samples: how many samples of it were calibrated with.
        compared: both engines; None where they could not be.
        moves: every range, the farthest moved first; empty where it is not known.
        notes: what else a person has to know, a sentence each.
    """

    verdict: str
    why: str
    old: EngineFacts
    new: EngineFacts
    how: str
    source: str
    new_samples: int
    compared: Compared | None
    moves: tuple[Move, ...]
    notes: tuple[str, ...]

    @property
    def commands(self) -> tuple[str, ...]:
        """What puts the new engine into service, and the old one back."""
        new, old = shlex.quote(str(self.new.path)), str(self.old.path)
        signs = (f"int8 sign {new} --key KEY.pem",) if self.old.signed else ()
        return (
            *signs,
            f"pool.replace({str(self.new.path)!r})  # a service with engines.EnginePool",
            f"int8 export-triton {new} models/  # Triton: the next version of its model",
            f"pool.replace({old!r})  # and back",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        compared = None
        if self.compared is not None:
            compared = asdict(self.compared) | {
                "verdict": self.compared.verdict,
                "enough_samples": self.compared.enough,
            }
        return {
            "decision": 1,
            **asdict(self),
            "old": asdict(self.old) | {"path": str(self.old.path)},
            "new": asdict(self.new) | {"path": str(self.new.path)},
            "compared": compared,
            "moves": [asdict(move) | {"ratio": move.ratio} for move in self.moves],
            "commands": list(self.commands),
        }

    def to_markdown(self) -> str:
        """For a person."""
        lines = [f"# Recalibration: {self.verdict}", "", f"{_sentence(self.why)}", ""]
        lines += [f"- old: {_engine(self.old)}", f"- new: {_engine(self.new)}"]
        lines += [f"- data: {self.data}", "", "## Both engines", ""]
        lines.append(
            "They were not compared."
            if self.compared is None
            else f"{self.compared}, of {self.compared.source}."
        )
        if self.notes:
            lines += ["", "## To know", "", *(f"- {_sentence(note)}" for note in self.notes)]
        moved = sum(move.notable for move in self.moves)
        lines += ["", "## Ranges", ""]
        if self.moves:
            lines += [
                f"{moved} of {counted(len(self.moves), 'range')} moved by more than 1 %, as "
                "calibrated, before anything is improved.",
                "",
                *(f"    {line}" for line in table_of(self.moves)),
            ]
        else:
            lines.append("Which moved is not known: the statistics of the old engine are missing.")
        lines += ["", "## To roll it out", "", "Nothing was changed. By hand:", ""]
        return printable("\n".join([*lines, *(f"    {line}" for line in self.commands), ""]))

    @property
    def data(self) -> str:
        """What was calibrated with."""
        new = f"{counted(self.new_samples, 'sample')} of {self.source}"
        if self.how == "replaced":
            return f"{new} alone; those of the old engine are left out"
        return f"{new}, together with those of the old engine"

    def write(self, paths: Paths) -> tuple[Path, Path]:
        """Write both forms beside the new engine.

        Raises:
            InputError: the folder cannot be written to.
        """
        page, record = paths.beside(".decision.md"), paths.beside(".decision.json")
        write_atomic(page, self.to_markdown().encode())
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomic(record, f"{text}\n".encode())
        return page, record


def decide(compared: Compared | None, unmeasured: str, gap: Sequence[str]) -> tuple[str, str]:
    """The verdict, and why in a sentence.

    Args:
        compared: both engines; None where they could not be.
        unmeasured: why not.
        gap: how the new engine differs from its own graph by more than rounding explains, if so.
    """
    if gap:
        return KEEP, f"the new engine computes something else than its graph: {'; '.join(gap)}"
    if compared is None:
        return UNTOLD, f"the engines were not compared: {unmeasured}"
    if compared.verdict == "better":
        return TAKE, f"the new engine is better: {compared}"
    if compared.verdict == "worse":
        return KEEP, f"the new engine is worse: {compared}"
    return UNTOLD, f"{_untold(compared)}: {compared}"


def _untold(compared: Compared) -> str:
    if compared.enough is not None and compared.enough > compared.samples:
        return f"a difference as large as this would be told with about {compared.enough:,} samples"
    if compared.mcnemar is None and compared.samples < FEWEST_SAMPLES:
        return f"fewer than {FEWEST_SAMPLES} samples tell nothing"
    if compared.gain == 0:
        return "both engines did equally well, which no number of samples tells apart"
    return "the difference is next to nothing, a few more samples may tell it"


def facts_of(
    path: Path, manifest: Manifest, *, signed: bool, version: int | None = None
) -> EngineFacts:
    """What a decision says of an engine; ``version`` where its manifest does not say it yet."""
    return EngineFacts(
        path=path,
        version=versions_of(manifest)[-1].version if version is None else version,
        sha256=manifest.engine_sha256,
        samples=manifest.passport.samples,
        improved_on=manifest.passport.improvement_samples,
        signed=signed,
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _engine(facts: EngineFacts) -> str:
    samples = "unknown samples" if facts.samples is None else counted(facts.samples, "sample")
    fitted = "not improved" if facts.improved_on is None else f"improved on {facts.improved_on}"
    return (
        f"`{facts.path}`, version {facts.version}, calibrated with {samples}, {fitted}, sha256 "
        f"{facts.sha256[:12]}…"
    )
