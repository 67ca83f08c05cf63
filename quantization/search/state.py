"""What a search has measured so far, in a file: a killed search goes on where it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artefacts.errors import ArtefactError
from artefacts.files import read_bounded, write_atomic
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
        try:
            content = json.loads(data)
            key, self._scores = content["key"], content["scores"]
            self._sensitivities = content["sensitivities"]
            self._saved_ms = content.get("saved_ms")
            times = (self._saved_ms or {}).values()
            numbers = [float(score) for score in (*self._scores.values(), *times)]
            named = {entry["group"] for entry in self._sensitivities}
            fidelities = [Fidelity(**e[k]) for e in self._sensitivities for k in _FIDELITIES]
            known = len(numbers) == len(self._scores) + len(times) and named <= groups
            found = content["format"] == _FORMAT and len(fidelities) == 2 * len(self._sensitivities)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as err:
            raise ArtefactError(
                f"search state {path} cannot be read ({err}), expected one written by this "
                "program; delete it to search from the start"
            ) from err
        if key != self._key or not (known and found):
            raise ArtefactError(
                f"search state {path} is of another network, goal unit or data, expected the same "
                "ones; delete it or choose another file"
            )


_FIDELITIES = ("alone", "without")
