"""What a signature says beside who made it: which model this is, which version, until when.

A signed engine under another's name is still signed. So name, version and last day go into the
manifest before it is signed, and whoever loads says what is expected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from artefacts.errors import EngineError, InputError
from artefacts.files import read_bounded
from artefacts.texts import shown
from engines.manifest import Manifest

__all__ = ["Expected", "Release"]

_LIMIT_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Release:
    """What is signed with an engine.

    Attributes:
        name: of the model.
        version: of it, any text; empty for none.
        expires: the last day (UTC) on which it loads; None for no end.

    Raises:
        InputError: no name, or a day that is none.
    """

    name: str
    version: str = ""
    expires: date | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable() or not self.version.isprintable():
            raise InputError(
                f"release has name {shown(self.name)} and version {shown(self.version)}, expected "
                "a name and printable text; correct them"
            )

    def to_json(self) -> dict[str, Any]:
        """As it lies in the passport."""
        expires = None if self.expires is None else self.expires.isoformat()
        return {"name": self.name, "version": self.version, "expires": expires}

    @classmethod
    def of(cls, manifest: Manifest) -> Release | None:
        """The release of a manifest; None where it was signed without one.

        Raises:
            EngineError: it is malformed.
        """
        found: Any = manifest.passport.release
        if found is None:
            return None
        try:
            expires = found["expires"]
            last = None if expires is None else date.fromisoformat(expires)
            return cls(name=found["name"], version=found["version"], expires=last)
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise EngineError(
                f"manifest has the release {shown(found)}, expected a name, a version and a day; "
                "sign the engine again"
            ) from err


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What whoever loads a signed engine wants it to be.

    Attributes:
        name: of the model; None for any.
        version: likewise.
        revoked: text file with a SHA-256 of an engine on each line; what is named is refused.
        today: to judge the last day by; None for the present one.
    """

    name: str | None = None
    version: str | None = None
    revoked: str | Path | None = None
    today: date | None = None

    def check(self, path: str | Path, manifest: Manifest) -> None:
        """Refuse another model or version, what has expired, and what was revoked.

        Raises:
            EngineError: one of these.
            InputError: the list cannot be used.
        """
        release = Release.of(manifest)
        found: Mapping[str, Any] = {} if release is None else release.to_json()
        for what, wanted in (("name", self.name), ("version", self.version)):
            if wanted is not None and found.get(what) != wanted:
                raise EngineError(
                    f"engine {path} is signed with {what} {shown(found.get(what))}, expected "
                    f"{shown(wanted)}; get the right one, or sign this one with --{what}"
                )
        today = self.today or datetime.now(timezone.utc).date()
        if release is not None and release.expires is not None and today > release.expires:
            raise EngineError(
                f"engine {path} expired on {release.expires} (today is {today}), expected one that "
                "has not; get a newer one, or sign this one again"
            )
        if self.revoked is not None and manifest.engine_sha256 in _revoked(self.revoked):
            raise EngineError(
                f"engine {path} was revoked (sha256 {manifest.engine_sha256} is in "
                f"{self.revoked}), expected another; get a newer one"
            )


def _revoked(path: str | Path) -> set[str]:
    """Hashes, one a line; what follows a ``#`` is a remark."""
    raw = read_bounded(path, limit_bytes=_LIMIT_BYTES, what="revocation list")
    lines = [line.partition("#")[0].strip() for line in raw.decode("utf-8", "replace").splitlines()]
    wrong = [line for line in lines if line and not _SHA256.fullmatch(line)]
    if wrong:
        raise InputError(
            f"revocation list {path} has the line {shown(wrong[0])}, expected a SHA-256 in "
            "hexadecimal on each; correct it"
        )
    return set(filter(None, lines))
