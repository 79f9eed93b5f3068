"""What the app's server refuses before any page sees it: foreign hosts and oversized bodies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

LARGEST = 64 << 20
"""Bytes of a request's body, at most: of a picture that is dropped."""
HEADERS = (
    # nothing is ever asked of another server
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self'; "
        b"frame-ancestors 'none'; form-action 'self'; base-uri 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class TooLarge(Exception):
    """A body that is longer than it may be."""


class Guards:
    """Refuses requests for other hosts, with bodies that are too large, or with ``..`` in them.

    A page of another site can have the browser send requests here; it cannot have them carry this
    server's name, nor its own origin.

    Args:
        app: what is guarded.
        hosts: names under which the server is asked for, in lower case and without port; none:
            any name.
        largest: bytes of a body, at most.
    """

    def __init__(self, app: Application, hosts: Sequence[str] = (), largest: int = LARGEST) -> None:
        self.app = app
        self.hosts = frozenset(hosts)
        self.largest = largest

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(scope, send, *refusal)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            if scope["type"] == "http" and message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self.largest:
                    raise TooLarge
            return message

        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        try:
            await self.app(scope, limited, with_headers)
        except TooLarge:
            if begun:
                raise
            await _refuse(scope, send, *self._too_large)

    @property
    def _too_large(self) -> tuple[int, str]:
        return 413, f"expected at most {self.largest >> 20} MB, got more"

    def _refusal(self, scope: Message, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        if ".." in scope.get("path", "").replace("\\", "/").split("/"):
            return 400, "expected a path without '..'"
        host = _host(headers.get(b"host", b""))
        if self.hosts and host not in self.hosts:
            return 421, f"expected this server's own name, got {host!r}"
        origin = headers.get(b"origin")
        if origin is not None and _authority(origin) != headers.get(b"host", b"").lower():
            return 403, "expected a request from one of this server's own pages"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.largest:
            return self._too_large
        return None


def _host(value: bytes) -> str:
    """The name in a Host header, without its port."""
    text = value.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def _authority(origin: bytes) -> bytes:
    return origin.partition(b"://")[2].lower()


async def _refuse(scope: Message, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    body = f"{reason}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
