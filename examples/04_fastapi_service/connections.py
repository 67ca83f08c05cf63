"""Connections that cost the service little: as many as it can hold, and none that never ends.

uvicorn's own limits count requests. One that is never finished is no request yet, and holds a
connection, a file descriptor and, while the service stops, the service.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import HTTPException
from uvicorn.protocols.http.h11_impl import H11Protocol

Message = MutableMapping[str, Any]

DESCRIPTORS_PER_CONNECTION = 4  # the socket, the upload once it is on disk, and room


def most_connections(wanted: int = 64) -> int:
    """``wanted``, or what this process's file descriptors allow."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, min(wanted, descriptors // DESCRIPTORS_PER_CONNECTION))


def accepted_at_once(most: int) -> int:
    """How many connections the event loop may accept before it looks at what it has.

    It goes round some five times until a new one is known and an old one closed; with asyncio's
    usual number a burst takes every descriptor before the first makes room.
    """
    return max(1, most // 4)


class HastyProtocol(H11Protocol):
    """HTTP/1.1 where a request, head and body, must have arrived in time.

    Beyond ``most`` connections the oldest that still sends, or is idle, makes room: so a health
    probe always gets in, however many senders have stalled.
    """

    most = most_connections()
    arrives_within_s = 30.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; make room for it first."""
        super().connection_made(transport)
        self._since_s = self.loop.time()
        self._late: asyncio.TimerHandle | None = None
        self._expect_a_request()
        if len(self.connections) > self.most:
            waiting: list[Any] = [each for each in self.connections if not each.is_answering()]
            min(waiting, key=lambda each: each._since_s).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Once the request is there, its time is the application's."""
        super().data_received(data)
        if self.is_answering():
            self._forget_the_time()
        elif self._late is None:
            self._expect_a_request()

    def on_response_complete(self) -> None:
        """What comes next is another request."""
        self._forget_the_time()
        self._since_s = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever hung up, nothing is left."""
        self._forget_the_time()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The service stops: answers are finished, half a request is not waited for."""
        super().shutdown()
        if not self.is_answering():
            self.transport.abort()

    def is_answering(self) -> bool:
        """Whether a whole request came and is not answered yet."""
        cycle = self.cycle
        return cycle is not None and not cycle.more_body and not cycle.response_complete

    def _expect_a_request(self) -> None:
        self._late = self.loop.call_later(self.arrives_within_s, self.transport.abort)

    def _forget_the_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


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
