"""What is watched and kept of an engine's requests, as a server's configuration says it in text."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from artefacts.errors import InputError
from engines.monitoring.recorder import Recorder

__all__ = ["Monitored", "add_flags"]


@dataclass(frozen=True, kw_only=True)
class Monitored:
    """By default nothing.

    Attributes:
        drift: whether requests are compared with the calibration data.
        record: folder that a sample of the requests is kept in; None for none.
        share: of the requests, to draw from.
        limit: most samples on disk.
        inputs: whether inputs are kept; else only counts of their values.
    """

    drift: bool = False
    record: str | None = None
    share: float = 0.01
    limit: int = 500
    inputs: bool = True

    def to_parameters(self) -> dict[str, str]:
        """What differs from nothing, name and text."""
        found = {"drift": "true"} if self.drift else {}
        if self.record is not None:
            found |= {
                "record": self.record,
                "record_share": str(self.share),
                "record_limit": str(self.limit),
                "record_inputs": "true" if self.inputs else "false",
            }
        return found

    @classmethod
    def from_parameters(cls, given: Mapping[str, str]) -> Monitored:
        """From what a configuration says; other names are passed over.

        Raises:
            InputError: a text that is none of what its name takes.
        """
        default = cls()
        try:
            return cls(
                drift=_truth(given.get("drift", "false")),
                record=given.get("record"),
                share=float(given.get("record_share", default.share)),
                limit=int(given.get("record_limit", default.limit)),
                inputs=_truth(given.get("record_inputs", "true")),
            )
        except ValueError as err:
            raise InputError(
                f"parameters {dict(given)} cannot be read ({err}), expected drift and "
                "record_inputs true or false, record_share and record_limit numbers; correct them"
            ) from err

    @classmethod
    def from_flags(cls, given: argparse.Namespace) -> Monitored:
        """From what :func:`add_flags` added."""
        return cls(
            drift=given.drift,
            record=given.record,
            share=given.record_share,
            limit=given.record_limit,
            inputs=not given.record_statistics,
        )

    def recorder(self, owner: str = "") -> Recorder | None:
        """A recorder; None without ``record``.

        Args:
            owner: where several record, whose folder below it: one belongs to one process.

        Raises:
            InputError: a share or limit that makes no sense.
        """
        if self.record is None:
            return None
        folder = Path(self.record, owner)
        return Recorder(folder, share=self.share, limit=self.limit, inputs=self.inputs)


def add_flags(to: argparse.ArgumentParser) -> None:
    """What a server keeps and watches of its requests: nothing, unless a flag says so."""
    default = Monitored()
    to.add_argument("--drift", action="store_true", help="watch requests; in the server's metrics")
    to.add_argument(
        "--record",
        metavar="FOLDER",
        help="keep a sample of the requests' inputs on the server: consent to that is yours",
    )
    to.add_argument(
        "--record-share", type=float, default=default.share, help="of them (default %(default)s)"
    )
    to.add_argument(
        "--record-limit", type=int, default=default.limit, help="most samples (default %(default)s)"
    )
    to.add_argument(
        "--record-statistics", action="store_true", help="keep counts of values, and no inputs"
    )


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"
