"""Cloud stores for tests: one in memory, and one that speaks S3 on this machine."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest

from storage.files import Place

KINDS = ("memory", "s3")
TIMED = ("summary.json", "report.html", "run.json")
"""Outputs of a run that hold seconds and dates, or digests of such."""


def everything(root: Place) -> dict[str, bytes]:
    """All files of a store by name, but for marks and locks, which hold seconds and dates."""
    found = {}
    for path in root.rglob("*"):
        name = f"{path}".removeprefix(f"{root}/")
        hidden = "/marks/" in name or "/history/" in name or path.name.startswith(".")
        if path.is_file() and not hidden:
            found[name] = path.read_bytes()
    return found


@contextmanager
def s3_server() -> Iterator[str]:
    """A local S3 server with the bucket ``bucket``; its URL. The environment points to it."""
    server_of = pytest.importorskip("moto.server", reason="the local S3 server needs moto")
    boto3 = pytest.importorskip("boto3", reason="the local S3 server needs boto3")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    settings = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        with mock.patch.dict(os.environ, settings):
            boto3.client("s3").create_bucket(Bucket="bucket")
            yield url
    finally:
        server.stop()


def fresh_url(kind: str) -> str:
    """The URL of a store that holds nothing yet."""
    name = uuid.uuid4().hex
    return f"memory://{name}" if kind == "memory" else f"s3://bucket/{name}"


def _usable(kind: str) -> Iterator[str]:
    if kind == "memory":
        pytest.importorskip("obstore", reason="cloud stores need obstore")
        yield kind
        return
    with s3_server():
        yield kind


@pytest.fixture(scope="module", params=KINDS)
def cloud(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kind of a cloud store that can be used now."""
    yield from _usable(request.param)


@pytest.fixture(scope="module", params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def run_cloud(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same for whole runs, which are slow on S3."""
    yield from _usable(request.param)
