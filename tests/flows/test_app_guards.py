"""The app's server refuses foreign hosts, foreign pages, oversized bodies and paths that climb."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui", reason="needs nicegui")

from flows.app.guards import Guards, Message
from flows.app.server import Settings, is_loopback
from flows.app.shelf import Shelf
from flows.app.try_form import DATASET, Form
from tasks.errors import SpecError

LOCAL = {"host": "127.0.0.1:8642"}


async def echo(scope: Message, receive: Any, send: Any) -> None:
    """An application that reads everything and says how much it was."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def ask(
    path: str = "/",
    headers: dict[str, str] | None = None,
    chunks: tuple[bytes, ...] = (b"",),
    kind: str = "http",
    **options: Any,
) -> list[Message]:
    sent: list[Message] = []
    left = list(chunks)

    async def receive() -> Message:
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    async def send(message: Message) -> None:
        sent.append(message)

    given = [(k.encode(), v.encode()) for k, v in (headers or LOCAL).items()]
    scope = {"type": kind, "path": path, "headers": given}
    hosts = options.pop("hosts", ("localhost", "127.0.0.1", "::1"))
    asyncio.run(Guards(echo, hosts=hosts, **options)(scope, receive, send))
    return sent


def status(sent: list[Message]) -> int:
    return int(sent[0]["status"])


def test_what_is_meant_for_it_passes_with_headers_that_keep_pages_at_home() -> None:
    sent = ask(chunks=(b"ab", b"c"), headers={**LOCAL, "origin": "http://127.0.0.1:8642"})
    assert status(sent) == 200
    assert sent[1]["body"] == b"3"
    headers = dict(sent[0]["headers"])
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert status(ask(headers={"host": "[::1]:8642"})) == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8642", ""])
def test_other_names_are_refused(host: str) -> None:
    assert status(ask(headers={"host": host})) == 421
    assert status(ask(headers={"host": host}, hosts=())) == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:9999", "null"])
def test_pages_of_others_are_refused(origin: str) -> None:
    assert status(ask(headers={**LOCAL, "origin": origin})) == 403
    sent = ask(headers={**LOCAL, "origin": origin}, kind="websocket")
    assert sent == [
        {
            "type": "websocket.close",
            "code": 1008,
            "reason": "expected a request from one of this server's own pages",
        }
    ]


def test_large_bodies_are_refused_stated_or_not() -> None:
    told = ask(headers={**LOCAL, "content-length": "1001"}, chunks=(b"x" * 1001,), largest=1000)
    untold = ask(chunks=(b"x" * 600, b"x" * 600), largest=1000)
    assert status(told) == status(untold) == 413
    assert status(ask(headers={**LOCAL, "content-length": "-5"})) == 413
    fits = ask(headers={**LOCAL, "content-length": "1000"}, chunks=(b"x" * 1000,), largest=1000)
    assert status(fits) == 200


@pytest.mark.parametrize("path", ["/../etc/passwd", "/stored/../../x", "/a/..\\..\\b"])
def test_paths_that_climb_are_refused(path: str) -> None:
    assert status(ask(path)) == 400


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("192.168.0.4", False),
        ("example.org", False),
    ],
)
def test_who_can_reach_it(host: str, expected: bool, tmp_path: Path) -> None:
    assert is_loopback(host) is expected
    assert bool(Settings(tmp_path, tmp_path, host).hosts) is expected


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a way out of it, and what lies outside."""
    found = tmp_path / "data"
    found.mkdir()
    (found / "link").symlink_to(tmp_path)
    for name in ("secret", "x", "cifar10"):
        (tmp_path / name).mkdir()
    return found


@pytest.mark.parametrize("path", ["../secret", "/etc", "a/../../x", "link/x", "secret", "cifar10"])
def test_typed_paths_stay_below_the_data_folder(
    path: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a run would look there too
    monkeypatch.chdir(data.parent)
    monkeypatch.setenv("IMAGE_DEFENDER_DATA", str(data.parent))
    form = Form(data)
    form.source, form.path = DATASET, path
    for ask in (form.album, form.content, form.picture):
        with pytest.raises(SpecError, match="below the data folder"):
            ask()
    form = Form(data)
    form.choose_family("face")
    form.weights = path
    with pytest.raises(SpecError, match="below the data folder"):
        form.content()
    form = Form(data)
    form.model, form.architecture, form.weights = "torchvision", "resnet18", path
    with pytest.raises(SpecError, match="below the data folder"):
        form.content()
    form = Form(data)
    form.purifier.choose("Learned")
    form.purifier.values["weights"] = path
    with pytest.raises(SpecError, match="below the data folder"):
        form.content()


def test_public_weights_are_not_fetched(data: Path) -> None:
    form = Form(data)
    form.model, form.architecture = "torchvision", "resnet18"
    with pytest.raises(SpecError, match=r"weights: expected a file below .* the app fetches none"):
        form.content()
    (data / "own.pt").write_bytes(b"")
    form.weights = " own.pt "
    assert form.content()["model"] == {"name": "torchvision:resnet18", "weights": "own.pt"}


def test_names_of_code_and_of_hubs_are_not_taken(data: Path) -> None:
    form = Form(data)
    form.purifier.choose("Learned")
    for word in ("python:os:getcwd", "["):
        form.purifier.values["network"] = word
        with pytest.raises(SpecError, match="network: expected one of"):
            form.content()
    form.purifier.choose("DDRM")
    for word in ("diffusers:google/ddpm-cifar10-32", f"diffusers:{data.parent}/x"):
        form.purifier.values["prior"] = word
        with pytest.raises(SpecError, match="prior: expected a path below the data folder"):
            form.content()
    form.purifier.choose("composition")
    for line in (
        "learned(network=python:os:getcwd)",
        "defense(path=/tmp/x.py)",
        f"DDRM(prior=diffusers:{data.parent}/x)",
        "[",
    ):
        form.purifier.values["line"] = line
        with pytest.raises(SpecError, match="line"):
            form.content()
    form.purifier.values["line"] = "median(3) > unsharp(1)"
    assert form.content()["purifiers"] == [
        {"name": "median(3) > unsharp(1)", "label": "median(3) > unsharp(1)"}
    ]


def test_numbers_out_of_range_are_named(data: Path) -> None:
    form = Form(data)
    form.attack.values["epsilon"] = 300
    with pytest.raises(SpecError, match=r"epsilon: expected \[0, 255\] in 255ths, got 300"):
        form.content()
    form.attack.choose("GridPatch")
    form.attack.values["fit_size"] = 0
    with pytest.raises(SpecError, match=r"fit_size: expected \(0, 1\], got 0"):
        form.content()
    form.attack.values["fit_size"] = None
    assert "fit_size" not in form.content()["attacks"][0]


def test_the_shelf_forgets_the_oldest_and_what_is_dropped() -> None:
    shelf = Shelf(most=100)
    first, second = shelf.put(b"a" * 60), shelf.put(b"b" * 60)
    assert shelf.get(first.split("/")[-1].removesuffix(".png")) is None
    name = second.split("/")[-1].removesuffix(".png")
    assert shelf.get(name) == b"b" * 60
    assert len(name) >= 32
    shelf.drop([second, "/pane/none.png"])
    assert shelf.get(name) is None
    assert shelf.bytes == 0
