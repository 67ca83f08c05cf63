"""Serve an image classifier over HTTP: POST /predict, GET /health, /live and /metrics.

    python examples/04_fastapi_service/app.py --engine out/digits.int8.engine

The engine brings its own preprocessing: what calibration did to an image is done to uploads.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import uvicorn
from connections import HastyProtocol, accepted_at_once
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
from engines import EnginePool, Manifest, PoolStatistics

# Status of a refusal → its name among the metrics.
REASONS = {
    "bad_image": 400,
    "too_large": 413,
    "bad_form": 422,
    "engine": 500,
    "not_ready": 503,
    "busy": 503,
}

Message = MutableMapping[str, Any]

STOPS_WITHIN_S = 10  # what still runs then is cut off
FAILURES = 3  # in a row and ours: then the service is not ready, and to be restarted

METRICS = (
    ("pool_size", "gauge", "Engines of the pool.", "size"),
    ("in_use", "gauge", "Engines that work now.", "in_use"),
    ("waiting", "gauge", "Requests that wait for an engine now.", "waiting"),
    ("served_total", "counter", "Requests that were answered.", "served"),
    ("failed_total", "counter", "Requests that an engine refused or could not run.", "failed"),
    ("rejected_total", "counter", "Requests turned away: too many waited.", "rejected"),
    ("timed_out_total", "counter", "Requests whose time was up.", "timed_out"),
    ("wait_seconds_total", "counter", "Time that engines were waited for.", "wait_s"),
    (
        "failed_in_row",
        "gauge",
        "Last requests that failed for no fault of theirs.",
        "failed_in_row",
    ),
    ("run_seconds_total", "counter", "Time that engines worked, decoding included.", "run_s"),
)


class Service:
    """The pool and what turns an upload into a request for it."""

    def __init__(self, pool: EnginePool, timeout_s: float, limits: ImageLimits) -> None:
        self.pool = pool
        self.timeout_s = timeout_s
        self.limits = limits
        self.preprocess, self.input = image_input(pool.manifest)
        self.labels = pool.manifest.passport.labels
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
        label = self.labels[best] if self.labels else None
        return {"class": best, "label": label, "scores": scores.tolist()}


class LimitedBody:
    """ASGI middleware: a body is cut off at the limit, before it fills memory or disk."""

    def __init__(self, app: Any, limit_bytes: int) -> None:
        self.app, self.limit_bytes = app, limit_bytes

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Pass the request on, counting its bytes."""
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.limit_bytes:
                raise HTTPException(
                    413,
                    f"upload is larger than {self.limit_bytes} bytes, expected a smaller image; "
                    "scale it down",
                    headers={"Connection": "close"},
                )
            return message

        await self.app(scope, limited, send)


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


def metrics_text(statistics: PoolStatistics, refused: Counter[str]) -> str:
    """Prometheus' text format, version 0.0.4."""
    lines = []
    for name, kind, what, attribute in METRICS:
        lines += [f"# HELP engine_{name} {what}", f"# TYPE engine_{name} {kind}"]
        lines += [f"engine_{name} {getattr(statistics, attribute)}"]
    lines += ["# HELP engine_refused_total Requests that got no answer, by reason."]
    lines += ["# TYPE engine_refused_total counter"]
    lines += [f'engine_refused_total{{reason="{why}"}} {refused[why]}' for why in REASONS]
    return "\n".join(lines) + "\n"


def create_app(
    pool: EnginePool,
    *,
    timeout_s: float = 2.0,
    limits: ImageLimits = UPLOADS,
    threads: int = 40,
) -> FastAPI:
    """The service.

    Args:
        pool: its owner closes it. What waits beyond its ``max_waiting`` gets 503 at once.
        timeout_s: for waiting and running; later is 503 too.
        limits: of an upload, in bytes and pixels.
        threads: for requests; more than the pool runs and lets wait, or the rest queues unseen
            instead of being turned away.

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
        text = metrics_text(pool.statistics(), service.refused)
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


def main() -> int:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--size", type=int, default=1, help="engines (default 1)")
    parser.add_argument("--max-waiting", type=int, default=8, help="requests that wait (default 8)")
    parser.add_argument("--trusted-key", type=Path, help="refuse an engine that it did not sign")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    try:
        with EnginePool(
            given.engine,
            given.size,
            max_waiting=given.max_waiting,
            trusted_key=given.trusted_key,
        ) as pool:
            app = create_app(pool, threads=given.size + given.max_waiting + 8)
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
