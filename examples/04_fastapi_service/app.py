"""Serve an image classifier over HTTP: POST /predict, GET /health, GET /metrics.

    python examples/04_fastapi_service/app.py --engine out/digits.int8.engine

The engine brings its own preprocessing: what calibration did to an image is done to uploads.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import uvicorn
from fastapi import FastAPI, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse

from artefacts.errors import BuilderError, BusyError, EngineError, InputError
from calibrators import Preprocess, decode_image
from engines import EnginePool, Manifest, PoolStatistics

Message = MutableMapping[str, Any]

METRICS = (
    ("pool_size", "gauge", "Engines of the pool.", "size"),
    ("in_use", "gauge", "Engines that work now.", "in_use"),
    ("waiting", "gauge", "Requests that wait for an engine now.", "waiting"),
    ("served_total", "counter", "Requests that were answered.", "served"),
    ("failed_total", "counter", "Requests that an engine refused or could not run.", "failed"),
    ("rejected_total", "counter", "Requests turned away: too many waited.", "rejected"),
    ("timed_out_total", "counter", "Requests whose time was up.", "timed_out"),
    ("wait_seconds_total", "counter", "Time that engines were waited for.", "wait_s"),
    ("run_seconds_total", "counter", "Time that engines worked.", "run_s"),
)


class Service:
    """The pool and what turns an upload into a request for it."""

    def __init__(self, pool: EnginePool, timeout_s: float) -> None:
        self.pool = pool
        self.timeout_s = timeout_s
        self.preprocess, self.input = image_input(pool.manifest)
        self.labels = pool.manifest.passport.labels
        self.ready = threading.Event()
        self.failure: BuilderError | None = None

    def warm_up(self) -> None:
        """In a thread of its own, while /health already answers that it is not ready."""
        try:
            self.pool.warm_up()
        except BuilderError as err:
            self.failure = err
        else:
            self.ready.set()

    def check_ready(self) -> None:
        """503 before the engines are warm."""
        if self.failure is not None:
            raise HTTPException(503, f"warm-up failed: {self.failure}")
        if not self.ready.is_set():
            raise HTTPException(503, "engine is warming up, expected a warm one; retry soon")

    def predict(self, raw: bytes, name: str) -> dict[str, Any]:
        """Class, its label where the manifest has labels, and the scores of all classes."""
        image = self.preprocess(decode_image(raw, name=name))
        outputs = self.pool({self.input: image[None]}, timeout_s=self.timeout_s)
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


def metrics_text(statistics: PoolStatistics) -> str:
    """Prometheus' text format, version 0.0.4."""
    lines = []
    for name, kind, what, attribute in METRICS:
        lines += [f"# HELP engine_{name} {what}", f"# TYPE engine_{name} {kind}"]
        lines += [f"engine_{name} {getattr(statistics, attribute)}"]
    return "\n".join(lines) + "\n"


def create_app(
    pool: EnginePool,
    *,
    timeout_s: float = 2.0,
    limit_bytes: int = 10 << 20,
    threads: int = 40,
) -> FastAPI:
    """The service.

    Args:
        pool: its owner closes it. What waits beyond its ``max_waiting`` gets 503 at once.
        timeout_s: for waiting and running; later is 503 too.
        limit_bytes: largest upload.
        threads: for requests; more than the pool runs and lets wait, or the rest queues unseen
            instead of being turned away.

    Raises:
        EngineError: the engine is no classifier of images.
    """
    service = Service(pool, timeout_s)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = threads
        warming = threading.Thread(target=service.warm_up)
        warming.start()
        yield
        warming.join()

    app = FastAPI(title="engine", lifespan=lifespan)
    app.add_middleware(LimitedBody, limit_bytes=limit_bytes)

    @app.post("/predict")
    def predict(file: UploadFile) -> dict[str, Any]:
        service.check_ready()
        return service.predict(file.file.read(), file.filename or "upload")

    # These two are async, so they answer while every thread works.
    @app.get("/health")
    async def health() -> dict[str, str]:
        service.check_ready()
        return {"status": "ready"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(
            metrics_text(pool.statistics()), media_type="text/plain; version=0.0.4"
        )

    @app.exception_handler(BuilderError)
    async def explain(request: Request, err: BuilderError) -> JSONResponse:
        """Our sentence with the status that fits: busy, the client's fault, or ours."""
        if isinstance(err, BusyError):
            return JSONResponse({"detail": str(err)}, 503, headers={"Retry-After": "1"})
        return JSONResponse({"detail": str(err)}, 400 if isinstance(err, InputError) else 500)

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
            uvicorn.run(app, host=given.host, port=given.port)
    except BuilderError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
