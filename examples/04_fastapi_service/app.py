"""Serve an image classifier over HTTP: POST /predict, GET /health, /live and /metrics.

    python examples/04_fastapi_service/app.py --engine out/digits.int8.engine

The engine brings its own preprocessing: what calibration did to an image is done to uploads.
With --drift it is watched whether they still look like the calibration data, with --record a
sample of them is kept, with --admin-token the engine can be changed under way.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import uvicorn
from admin import Admin, admin_routes, read_token
from connections import HastyProtocol, LimitedBody, accepted_at_once
from fastapi import FastAPI, HTTPException, Request, UploadFile
from fastapi.exception_handlers import (
    http_exception_handler,
    request_validation_exception_handler,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from artefacts.errors import BuilderError, BusyError, ClosedError, EngineError, InputError
from calibrators import UPLOADS, ImageLimits, Preprocess, decode_image
from engines import EnginePool, Family, Manifest, prometheus_text
from engines.monitoring.settings import Monitored
from engines.monitoring.settings import add_flags as add_monitoring_flags

# Status of a refusal → its name among the metrics.
REASONS = {
    "bad_image": 400,
    "too_large": 413,
    "bad_form": 422,
    "engine": 500,
    "not_ready": 503,
    "busy": 503,
}

STOPS_WITHIN_S = 10  # what still runs then is cut off
FAILURES = 3  # in a row and ours: then the service is not ready, and to be restarted


class Service:
    """The pool and what turns an upload into a request for it."""

    def __init__(self, pool: EnginePool, timeout_s: float, limits: ImageLimits) -> None:
        self.pool = pool
        self.timeout_s = timeout_s
        self.limits = limits
        self.preprocess, self.input = image_input(pool.manifest)
        self.ready = threading.Event()
        self.failure: BuilderError | None = None
        self.refused: Counter[str] = Counter()

    def warm_up(self) -> None:
        """In a thread of its own, while /health already answers that it is not ready."""
        try:
            self.pool.warm_up()
        except BuilderError as err:
            self.failure = err
        else:
            self.ready.set()

    def check_warm(self) -> None:
        """503 before the engines are warm."""
        if self.failure is not None:
            raise HTTPException(503, f"warm-up failed: {self.failure}")
        if not self.ready.is_set():
            raise HTTPException(503, "engine is warming up, expected a warm one; retry soon")

    def check_working(self) -> None:
        """503 where the last requests failed and were not to blame; an answer mends it."""
        failed = self.pool.statistics().failed_in_row
        if failed >= FAILURES:
            raise HTTPException(
                503, f"engine failed {failed} times in a row, expected answers; restart the service"
            )

    def predict(self, file: UploadFile) -> dict[str, Any]:
        """Class, its label where the manifest has labels, and the scores of all classes.

        Decoding counts as running: no more pictures are decoded at a time than there are engines,
        and what would wait too long is turned away before it is read.
        """

        def arrays(deadline_s: float | None) -> dict[str, Any]:
            name = file.filename or "upload"
            raw = file.file.read()
            image = decode_image(raw, name=name, limits=self.limits, deadline_s=deadline_s)
            return {self.input: self.preprocess(image, limits=self.limits)[None]}

        outputs = self.pool(arrays, timeout_s=self.timeout_s)
        scores = next(iter(outputs.values()))[0]
        best = int(scores.argmax())
        labels = self.pool.manifest.passport.labels
        label = labels[best] if labels else None
        return {"class": best, "label": label, "scores": scores.tolist()}


def image_input(manifest: Manifest) -> tuple[Preprocess, str]:
    """The preprocessing of the manifest and the input it feeds.

    Raises:
        EngineError: the engine has none, or needs more than an image.
    """
    spec = manifest.passport.preprocess
    names = [each.name for each in manifest.inputs]
    if spec is None or len(names) != 1:
        raise EngineError(
            f"engine has preprocessing {spec} and the inputs {names}, expected a preprocessing "
            "spec and one image input; build it with --preprocess"
        )
    return Preprocess.from_dict(spec, where="preprocessing of the manifest"), names[0]


def refusals(refused: Counter[str]) -> Family:
    """Refusals by reason, as the pool's own metrics are shown."""
    return Family(
        name="engine_refused_total",
        kind="counter",
        help="Requests that got no answer, by reason.",
        samples=tuple(({"reason": why}, refused[why]) for why in REASONS),
    )


def create_app(
    pool: EnginePool,
    *,
    timeout_s: float = 2.0,
    limits: ImageLimits = UPLOADS,
    threads: int = 40,
    admin: Admin | None = None,
) -> FastAPI:
    """The service.

    Args:
        pool: its owner closes it. What waits beyond its ``max_waiting`` gets 503 at once.
        timeout_s: for waiting and running; later is 503 too.
        limits: of an upload, in bytes and pixels.
        threads: for requests; more than the pool runs and lets wait, or the rest queues unseen
            instead of being turned away.
        admin: may change the engine; None for nobody.

    Raises:
        EngineError: the engine is no classifier of images.
    """
    service = Service(pool, timeout_s, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = threads
        warming = threading.Thread(target=service.warm_up)
        warming.start()
        yield
        warming.join()

    app = FastAPI(title="engine", lifespan=lifespan)
    app.add_middleware(LimitedBody, limit_bytes=limits.file_bytes)
    if admin is not None:
        app.include_router(admin_routes(admin))

    @app.post("/predict")
    def predict(file: UploadFile) -> dict[str, Any]:
        service.check_warm()
        return service.predict(file)

    # These are async, so they answer while every thread works.
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Readiness: whether requests should come here."""
        service.check_warm()
        service.check_working()
        return {"status": "ready"}

    @app.get("/live")
    async def live() -> dict[str, str]:
        """Liveness: whether a restart would help."""
        service.check_working()
        return {"status": "live"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        text = prometheus_text((*pool.metrics(), refusals(service.refused)))
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    @app.exception_handler(BuilderError)
    async def explain(request: Request, err: BuilderError) -> JSONResponse:
        """Our sentence with the status that fits: busy, the client's fault, or ours."""
        if isinstance(err, BusyError | ClosedError):
            service.refused["busy"] += 1
            return JSONResponse({"detail": str(err)}, 503, headers={"Retry-After": "1"})
        why = "bad_image" if isinstance(err, InputError) else "engine"
        service.refused[why] += 1
        return JSONResponse({"detail": str(err)}, REASONS[why])

    @app.exception_handler(AnyHTTPException)
    async def count(request: Request, err: AnyHTTPException) -> Response:
        if request.url.path == "/predict":
            why = {413: "too_large", 503: "not_ready"}.get(err.status_code, "bad_form")
            service.refused[why] += 1
        return await http_exception_handler(request, err)

    @app.exception_handler(RequestValidationError)
    async def count_form(request: Request, err: RequestValidationError) -> Response:
        service.refused["bad_form"] += 1
        return await request_validation_exception_handler(request, err)

    return app


def arguments() -> argparse.Namespace:
    """The flags; nothing is recorded, watched or changed unless one says so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--size", type=int, default=1, help="engines (default 1)")
    parser.add_argument("--max-waiting", type=int, default=8, help="requests that wait (default 8)")
    parser.add_argument("--trusted-key", type=Path, help="refuse an engine that it did not sign")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    parser.add_argument("--port", type=int, default=8000)
    add_monitoring_flags(parser)
    parser.add_argument(
        "--admin-token",
        type=Path,
        metavar="FILE",
        help="its text lets requests to /admin change the engine; nobody can without",
    )
    return parser.parse_args()


def options(given: argparse.Namespace, opened: ExitStack) -> dict[str, Any]:
    """What the flags say to the pool; a recorder is closed with ``opened``."""
    monitored = Monitored.from_flags(given)
    chosen = {"trusted_key": given.trusted_key, "drift": monitored.drift}
    if (recorder := monitored.recorder()) is not None:
        chosen["record"] = opened.enter_context(recorder)
    return chosen


def main() -> int:
    """Serve until SIGTERM or Ctrl-C."""
    given = arguments()
    try:
        token = None if given.admin_token is None else read_token(given.admin_token)
        with ExitStack() as opened:
            made = EnginePool(
                given.engine, given.size, max_waiting=given.max_waiting, **options(given, opened)
            )
            pool = opened.enter_context(made)
            admin = None if token is None else Admin(pool, given.engine, token)
            app = create_app(pool, threads=given.size + given.max_waiting + 8, admin=admin)
            uvicorn.run(
                app,
                host=given.host,
                port=given.port,
                http=HastyProtocol,
                ws="none",
                backlog=accepted_at_once(HastyProtocol.most),
                timeout_graceful_shutdown=STOPS_WITHIN_S,
            )
    except BuilderError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
