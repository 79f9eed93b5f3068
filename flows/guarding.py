"""What servers on this machine refuse: requests under foreign names, and from pages of others.

A page of any site can have the browser send requests to this machine, and can have a name of its
own lead here (DNS rebinding). It cannot have them carry a name of this machine's, nor this origin.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]
Refusal = tuple[int, str]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine that nobody else can have."""
ANY = "*"


class Guard:
    """Refuses requests for other hosts and from pages of other servers.

    Args:
        app: what is guarded.
        hosts: names under which the server is asked for, in lower case and without port; none:
            any name.
        origins: of pages besides the server's own that may ask, such as ``http://localhost:4200``.
        headers: added to every answer.
    """

    def __init__(
        self,
        app: Application,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        headers: Headers = (),
    ) -> None:
        self.app = app
        self.hosts = frozenset(hosts)
        self.origins = frozenset(one.lower().encode() for one in origins)
        self.headers = headers

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refused = self.refusal(scope, {name.lower(): value for name, value in scope["headers"]})
        if refused is not None:
            await refuse(scope, send, *refused)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.headers]
            await send(message)

        await self.pass_on(scope, receive, with_headers)

    async def pass_on(self, scope: Message, receive: Receive, send: Send) -> None:
        """Have the application answer."""
        await self.app(scope, receive, send)

    def refusal(self, scope: Message, headers: dict[bytes, bytes]) -> Refusal | None:
        """Status and reason where a request is refused, None where it is passed on."""
        host = host_of(headers.get(b"host", b"").decode("latin-1"))
        if self.hosts and host not in self.hosts:
            return 421, f"expected this server's own name, got {host!r}"
        origin = headers.get(b"origin")
        if origin is None or ANY.encode() in self.origins or origin.lower() in self.origins:
            return None
        if origin.partition(b"://")[2].lower() != headers.get(b"host", b"").lower():
            return 403, "expected a request from one of this server's own pages"
        return None


def host_of(authority: str) -> str:
    """The name in a Host header or an address, in lower case and without its port."""
    text = authority.lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


async def refuse(scope: Message, send: Send, status: int, reason: str) -> None:
    """Answer a request, which is not passed on."""
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
