"""Change the engine of the running service, or compare another with it: POST /admin/….

Only where the service was given a token, which every request must bring. Engines are named, not
pathed: a file beside the one that the service was started with, and nothing else of this machine.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from artefacts.errors import BuilderError, ClosedError, EngineError, InputError, UnsupportedError
from artefacts.files import read_bounded
from engines import EnginePool, read_manifest

SHORTEST_TOKEN = 16


class Replace(BaseModel):
    """Body of POST /admin/replace."""

    engine: str


class Compare(BaseModel):
    """Body of POST /admin/shadow."""

    engine: str
    share: float = 0.1


class Admin:
    """Which file answers, which did before, and the changes between them, one at a time."""

    def __init__(self, pool: EnginePool, engine: Path, token: str) -> None:
        self._pool, self._folder, self._token = pool, engine.parent, token
        self._serving = engine
        self._before: Path | None = None
        self._sha256 = {engine: pool.manifest.engine_sha256}
        self._changing = threading.Lock()

    def check(self, request: Request) -> None:
        """401 for a request without the token."""
        given = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            raise HTTPException(
                401,
                "request has no valid token, expected 'Authorization: Bearer …' with the one of "
                "--admin-token; add it",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def replace(self, name: str) -> dict[str, Any]:
        """Let the engine of a file answer."""
        with self._changing:
            return self._replace(self._file(name))

    def back(self) -> dict[str, Any]:
        """Let the engine before answer again, if its file is still what it was."""
        with self._changing:
            if self._before is None:
                raise InputError(
                    "service has not changed its engine, expected one to go back to; name it in "
                    "POST /admin/replace"
                )
            found, was = read_manifest(self._before).engine_sha256, self._sha256[self._before]
            if found != was:
                raise EngineError(
                    f"engine {self._before.name} has sha256 {found}, expected {was} as when it "
                    "answered; if the new file is meant, name it in POST /admin/replace"
                )
            return self._replace(self._before)

    def compare(self, name: str, share: float) -> dict[str, Any]:
        """Let another engine answer a share of the requests, too, only to be compared."""
        with self._changing:
            self._pool.start_shadow(self._file(name), share=share)
        return self.comparison()

    def comparison(self) -> dict[str, Any]:
        """What the comparison has come to; 404 without one."""
        shadow = self._pool.shadow
        if shadow is None:
            raise HTTPException(
                404, "service compares no engine, expected one; begin with POST /admin/shadow"
            )
        return asdict(shadow.statistics())

    def end(self) -> dict[str, Any]:
        """End the comparison; the last of its counts."""
        with self._changing:
            found = self.comparison()
            self._pool.stop_shadow()
        return found

    def _replace(self, path: Path) -> dict[str, Any]:
        self._pool.replace(path)
        sha256 = self._pool.manifest.engine_sha256
        self._serving, self._before = path, self._serving
        self._sha256[path] = sha256
        return {"engine": path.name, "sha256": sha256, "before": self._before.name}

    def _file(self, name: str) -> Path:
        if not name or Path(name).name != name or "\\" in name or not name.isprintable():
            raise InputError(
                f"engine is named {name!r}, expected the name of a file beside the engine that the "
                "service was started with, without a folder; put it there"
            )
        return self._folder / name


def read_token(path: Path) -> str:
    """The token of a file.

    Raises:
        InputError: it is missing, or too short to be a secret.
    """
    raw = read_bounded(path, limit_bytes=4096, what="admin token")
    token = raw.decode("utf-8", "replace").strip()
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise InputError(
            f"admin token {path} has {len(token)} characters, expected at least {SHORTEST_TOKEN} "
            "printable ones of ASCII; make one with openssl rand -hex 32"
        )
    return token


def admin_routes(admin: Admin) -> APIRouter:
    """POST replace, back and shadow; GET and DELETE shadow."""
    routes = APIRouter(prefix="/admin", dependencies=[Depends(admin.check)])

    @routes.post("/replace")
    def replace(body: Replace) -> Any:
        return answered(lambda: admin.replace(body.engine))

    @routes.post("/back")
    def back() -> Any:
        return answered(admin.back)

    @routes.post("/shadow")
    def compare(body: Compare) -> Any:
        return answered(lambda: admin.compare(body.engine, body.share))

    @routes.get("/shadow")
    def comparison() -> Any:
        return answered(admin.comparison)

    @routes.delete("/shadow")
    def end() -> Any:
        return answered(admin.end)

    return routes


def answered(change: Callable[[], dict[str, Any]]) -> Any:
    """What a change says; where it is refused, the sentence, and the old engine goes on."""
    try:
        return change()
    except (ClosedError, UnsupportedError) as err:
        return JSONResponse({"detail": str(err)}, 503)
    except BuilderError as err:
        return JSONResponse({"detail": str(err)}, 409 if isinstance(err, EngineError) else 400)
