"""What a search has measured so far, in a file: a killed search goes on where it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artefacts.documents import parse_json
from artefacts.errors import ArtefactError
from artefacts.faults import reading
from artefacts.files import read_bounded, write_atomic
from artefacts.texts import shown
from quantization.measure.fidelity import Fidelity
from quantization.placement.fusion_groups import Group
from quantization.search.sensitivity import Sensitivity

__all__ = ["SearchState"]

_FORMAT = 1
# A file from elsewhere must not fill the memory before it is seen to be no state.
_LIMIT_BYTES = 64 << 20


class SearchState:
    """Scores and sensitivities of one search.

    Args:
        path: a ``*.search.json``, read where it exists; None keeps nothing.
        key: what the numbers depend on; a file of another key is refused.
        groups: names of the groups of the network.

    Raises:
        ArtefactError: the file is of another search, or damaged.
    """

    def __init__(self, path: Path | None, key: str, groups: Sequence[str]) -> None:
        self._path = path
        self._key = hashlib.sha256("\n".join([key, *groups]).encode()).hexdigest()
        self._scores: dict[str, float] = {}
        self._sensitivities: list[dict[str, Any]] = []
        self._saved_ms: dict[str, float] | None = None
        if path is not None and path.is_file():
            self._read(path, set(groups))

    def score(self, released: Sequence[str], fitted_without: Sequence[str]) -> float | None:
        """Score of a candidate in the network that was fitted for another, if it is known."""
        return self._scores.get(json.dumps([fitted_without, released]))

    def add_score(
        self, released: Sequence[str], fitted_without: Sequence[str], score: float
    ) -> None:
        """Keep a score."""
        self._scores[json.dumps([fitted_without, released])] = score
        self._write()

    @property
    def saved_ms(self) -> Mapping[str, float] | None:
        """Measured costs, if they are known: another measurement would rank otherwise."""
        return self._saved_ms

    def add_saved_ms(self, saved_ms: Mapping[str, float]) -> None:
        """Keep measured costs."""
        self._saved_ms = dict(saved_ms)
        self._write()

    def sensitivities(self, groups: Sequence[Group]) -> tuple[Sensitivity, ...] | None:
        """The sensitivities, if they are known."""
        if not self._sensitivities:
            return None
        named = {group.name: group for group in groups}
        return tuple(
            Sensitivity(
                group=named[entry["group"]],
                alone=Fidelity(**entry["alone"]),
                without=Fidelity(**entry["without"]),
                gained=entry["gained"],
            )
            for entry in self._sensitivities
        )

    def add_sensitivities(self, found: Sequence[Sensitivity]) -> None:
        """Keep the sensitivities."""
        self._sensitivities = [
            {
                "group": entry.group.name,
                "alone": dataclasses.asdict(entry.alone),
                "without": dataclasses.asdict(entry.without),
                "gained": entry.gained,
            }
            for entry in found
        ]
        self._write()

    def _write(self) -> None:
        if self._path is not None:
            content = {
                "format": _FORMAT,
                "key": self._key,
                "scores": self._scores,
                "sensitivities": self._sensitivities,
                "saved_ms": self._saved_ms,
            }
            write_atomic(self._path, json.dumps(content, indent=1).encode())

    def _read(self, path: Path, groups: set[str]) -> None:
        data = read_bounded(path, limit_bytes=_LIMIT_BYTES, what="search state")
        remedy = "expected one written by this program; delete it to search from the start"
        with reading(path, "search state", remedy=remedy):
            content = parse_json(data, infinite=True)
            key, self._scores = content["key"], content["scores"]
            self._sensitivities = content["sensitivities"]
            self._saved_ms = content.get("saved_ms")
            times = self._saved_ms or {}
            for numbers in (self._scores, times):
                if not all(_is_number(number) for number in numbers.values()):
                    raise TypeError(f"scores or times are {shown(numbers)}, not numbers by name")
            named = {entry["group"] for entry in self._sensitivities}
            known = named <= groups and set(times) <= groups
            found = content["format"] == _FORMAT
            for entry in self._sensitivities:
                _check_sensitivity(entry)
        if key != self._key or not (known and found):
            raise ArtefactError(
                f"search state {path} is of another network, goal unit or data, expected the same "
                "ones; delete it or choose another file"
            )


def _check_sensitivity(entry: Mapping[str, Any]) -> None:
    """Refuse what :meth:`SearchState.sensitivities` could not make numbers of."""
    numbers = [entry["gained"]]
    for which in ("alone", "without"):
        fidelity = dataclasses.asdict(Fidelity(**entry[which]))
        numbers += [value for value in fidelity.values() if value is not None]
    if not isinstance(entry["group"], str) or not all(map(_is_number, numbers)):
        raise TypeError(f"sensitivity of {shown(entry['group'])} is {shown(numbers)}, not numbers")


def _is_number(value: object) -> bool:
    """Whether arithmetic will take it: text, NaN and integers beyond float64 are none."""
    return type(value) in (int, float) and not math.isnan(float(value))  # type: ignore[arg-type]
