"""What the app's server refuses before any page sees it: foreign hosts and oversized bodies."""

from __future__ import annotations

from collections.abc import Sequence

from flows.guarding import Application, Guard, Headers, Message, Receive, Refusal, Send, refuse

LARGEST = 64 << 20
"""Bytes of a request's body, at most: of a picture that is dropped."""
HEADERS: Headers = (
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


class Guards(Guard):
    """Refuses requests for other hosts, with bodies that are too large, or with ``..`` in them.

    Args:
        app: what is guarded.
        hosts: names under which the server is asked for, in lower case and without port; none:
            any name.
        largest: bytes of a body, at most.
    """

    def __init__(self, app: Application, hosts: Sequence[str] = (), largest: int = LARGEST) -> None:
        super().__init__(app, hosts, headers=HEADERS)
        self.largest = largest

    async def pass_on(self, scope: Message, receive: Receive, send: Send) -> None:
        """Have the application answer, unless the body turns out to be too large."""
        received, begun = 0, False

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            if scope["type"] == "http" and message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self.largest:
                    raise TooLarge
            return message

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, limited, noting)
        except TooLarge:
            if begun:
                raise
            await refuse(scope, send, *self._too_large)

    @property
    def _too_large(self) -> Refusal:
        return 413, f"expected at most {self.largest >> 20} MB, got more"

    def refusal(self, scope: Message, headers: dict[bytes, bytes]) -> Refusal | None:
        """Status and reason where a request is refused, None where it is passed on."""
        if ".." in scope.get("path", "").replace("\\", "/").split("/"):
            return 400, "expected a path without '..'"
        refused = super().refusal(scope, headers)
        if refused is not None:
            return refused
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.largest:
            return self._too_large
        return None
