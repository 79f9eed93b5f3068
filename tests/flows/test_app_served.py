"""The app as it is served refuses what its guards refuse, and listens to this machine alone."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("nicegui", reason="needs nicegui")

from nicegui import app, ui
from starlette.testclient import TestClient

from flows.app.guards import LARGEST
from flows.app.server import Settings, serve
from tests.flows.app_server import app_at

SMALL = 1000
"""Bytes of a body, at most, where this is not the default."""
HOME = "http://127.0.0.1:8642"
REFUSED = (
    ("/", {"host": "evil.example"}, 421),
    ("/browse", {"host": "127.0.0.1.evil.example"}, 421),
    ("/", {"origin": "http://evil.example"}, 403),
    ("/_nicegui_ws/socket.io/?EIO=4&transport=polling", {"origin": "http://127.0.0.1:1"}, 403),
    ("/pane/%2e%2e%5c%2e%2e/passwd", {}, 400),
    ("/stored/%2e%2e/%2e%2e/x", {}, 400),
)
"""Paths, headers, and the status that is expected."""
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self'; "


@pytest.fixture(scope="module")
def ran() -> dict[str, Any]:
    """What the server was started with."""
    return {}


@pytest.fixture(scope="module")
def client(ran: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Asks the application that the server runs; only the socket is left out."""
    kept = [(part, list(part)) for part in (app.user_middleware, app.router.routes)]
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "0")
        patch.setattr(ui, "run", lambda **options: ran.update(options))
        app.middleware_stack = None
        serve(Settings(folder / "store", folder, largest=SMALL))
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        yield TestClient(app, base_url=HOME, follow_redirects=False)
    for part, before in kept:
        part[:] = before
    app.middleware_stack = None


@pytest.mark.parametrize(("path", "headers", "expected"), REFUSED)
def test_guards_stand_before_the_pages(
    path: str, headers: dict[str, str], expected: int, client: TestClient
) -> None:
    assert client.get(path, headers=headers).status_code == expected


def test_bodies_are_limited_before_the_pages(client: TestClient) -> None:
    path = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
    assert client.post(path, content=b"x" * (SMALL + 1)).status_code == 413
    assert client.post(path, content=b"x" * SMALL).status_code != 413


def test_what_is_passed_on_carries_the_policy(client: TestClient) -> None:
    found = client.get("/pane/none.png")
    assert (found.status_code, found.text) == (404, "no such picture")
    assert found.headers["content-security-policy"].startswith(POLICY)


def test_it_is_told_to_listen_to_this_machine_alone(
    client: TestClient, ran: dict[str, Any]
) -> None:
    assert ran["host"] == "127.0.0.1"
    assert ran["reload"] is False
    assert "on_air" not in ran


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("app")
    with app_at(folder / "store", folder) as found:
        yield found


def asked(address: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
    """Status and content policy of the answer to a request that is sent as it stands."""
    connection = http.client.HTTPConnection(str(urlsplit(address).netloc), timeout=30)
    with closing(connection):
        connection.request("GET", path, headers=headers)
        with connection.getresponse() as found:
            return found.status, found.getheader("content-security-policy") or ""


@pytest.mark.slow
def test_the_process_refuses_too(address: str) -> None:
    for path, headers, expected in REFUSED:
        assert asked(address, path, headers)[0] == expected, path
    assert asked(address, "/stored/../../etc/passwd", {})[0] == 400
    assert asked(address, "/", {"content-length": str(LARGEST + 1)})[0] == 413
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    path = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    assert asked(address, path, {**upgrade, "origin": "http://evil.example"})[0] == 403
    assert asked(address, path, {**upgrade, "origin": address})[0] == 101
    for page in ("/", "/browse"):
        status, policy = asked(address, page, {})
        assert status == 200
        assert policy.startswith(POLICY)


@pytest.mark.slow
def test_only_the_address_of_this_machine_is_bound(address: str) -> None:
    port = int(urlsplit(address).port or 0)
    socket.create_connection(("127.0.0.1", port), timeout=10).close()
    # all of 127.0.0.0/8 is this machine: what listens to every address answers there too
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=10)
