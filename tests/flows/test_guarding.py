"""Prefect's server answers programs of this machine and its own pages, and nobody else."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx
import pytest

from flows import prefect_server, server
from flows.guarding import Application, Message, Receive, Send
from flows.processes import Process

PORT = 4300
OWN = [f"http://127.0.0.1:{PORT}", f"http://localhost:{PORT}"]
EVIL = "http://evil.example"
PREFLIGHT = {"access-control-request-method": "POST"}


async def answer(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


def ask(
    app: Application,
    method: str,
    path: str = "/api/deployments/",
    base: str = OWN[0],
    **headers: str,
) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, path, headers=named)

    return asyncio.run(asked())


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "PATCH", "DELETE", "PUT", "GET"])
@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost:9999", f"{OWN[0]}.evil.com"])
def test_pages_of_others_are_refused(method: str, origin: str) -> None:
    found = ask(prefect_server.guarded(answer, OWN), method, origin=origin)
    assert found.status_code == 403
    assert "access-control-allow-origin" not in found.headers


@pytest.mark.parametrize("base", [EVIL, f"{EVIL}:{PORT}", f"http://127.0.0.1.evil.example:{PORT}"])
def test_a_name_that_was_made_to_lead_here_is_refused(base: str) -> None:
    """A page whose own name leads to this machine is of the same origin for its browser."""
    found = ask(prefect_server.guarded(answer, OWN), "POST", base=base, origin=base)
    assert found.status_code == 421


@pytest.mark.parametrize(
    ("base", "headers"),
    [
        (OWN[0], {}),
        (OWN[1], {}),
        (f"http://[::1]:{PORT}", {}),
        (OWN[0], {"origin": OWN[0]}),
        (OWN[0], {"origin": OWN[1]}),
        # through a tunnel that ends at another port
        ("http://localhost:9000", {"origin": "http://localhost:9000"}),
    ],
)
def test_programs_and_its_own_pages_are_answered(base: str, headers: dict[str, str]) -> None:
    found = ask(prefect_server.guarded(answer, OWN), "POST", base=base, **headers)
    assert (found.status_code, found.text) == (200, "done")
    assert found.headers["content-security-policy"] == "frame-ancestors 'none'"


def test_names_that_are_served_on_purpose() -> None:
    named = prefect_server.guarded(answer, [*OWN, "https://Prefect.example.org"])
    page = "https://prefect.example.org"
    assert ask(named, "POST", base=page, origin=page).status_code == 200
    assert ask(named, "POST", base=page, origin=EVIL).status_code == 403
    assert ask(named, "POST", base=EVIL).status_code == 421
    everybody = prefect_server.guarded(answer, ["*"])
    assert ask(everybody, "POST", base=EVIL, origin="http://other.example").status_code == 200


@pytest.mark.slow
def test_prefects_own_server_is_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_SERVER_CORS_ALLOWED_ORIGINS, temporary_settings

    monkeypatch.setenv("PREFECT__SERVER_EPHEMERAL", "1")
    with temporary_settings({PREFECT_SERVER_CORS_ALLOWED_ORIGINS: prefect_server.origins_of(PORT)}):
        app = prefect_server.create_app()
    assert ask(app, "GET", "/api/health").status_code == 200
    assert ask(app, "OPTIONS", origin=EVIL, **PREFLIGHT).status_code == 403
    assert ask(app, "POST", origin=EVIL).status_code == 403
    assert ask(app, "GET", "/api/health", base=EVIL).status_code == 421
    allowed = ask(app, "OPTIONS", origin=OWN[1], **PREFLIGHT)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == OWN[1]


@pytest.fixture
def no_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (prefect_server.ORIGINS, prefect_server.OLDER_ORIGINS):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_origins")
def test_up_starts_it_for_its_own_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], dict[str, str]]] = []

    def launched(command: list[str], variables: dict[str, str], *rest: Path) -> Process:
        seen.append((command, variables))
        return Process(1, 1, "")

    monkeypatch.setattr(server, "launch", launched)
    place = server.place_of(tmp_path)
    server._start_server(place, PORT, server.environment(place, PORT))
    command, variables = seen[0]
    assert command[:3] == [sys.executable, "-m", "uvicorn"]
    assert "flows.prefect_server:create_app" in command
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert settings_of(variables) == OWN
    monkeypatch.setenv(prefect_server.ORIGINS, "https://prefect.example.org")
    assert settings_of(server.environment(place, PORT)) == ["https://prefect.example.org"]


@pytest.mark.usefixtures("no_origins")
def test_a_run_starts_it_for_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import embedded

    seen: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(
        embedded.subprocess, "Popen", lambda command, env: seen.append((command, env))
    )
    monkeypatch.setenv(prefect_server.ORIGINS, "*")
    made = embedded.Server()
    command, variables = seen[0]
    assert "flows.prefect_server:create_app" in command
    own = [f"http://127.0.0.1:{made.port}", f"http://localhost:{made.port}"]
    assert settings_of(variables) == own


def settings_of(variables: dict[str, str]) -> list[str]:
    """The pages that Prefect takes from an environment to be allowed."""
    from prefect.settings.models.server.api import ServerAPISettings

    with pytest.MonkeyPatch.context() as changed:
        for name in (prefect_server.ORIGINS, prefect_server.OLDER_ORIGINS):
            changed.delenv(name, raising=False)
            if name in variables:
                changed.setenv(name, variables[name])
        return ServerAPISettings().cors_allowed_origins.split(",")
