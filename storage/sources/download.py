"""Fetching a published archive: checked by its digest, unpacked safely, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from storage.errors import SourceError

_BLOCK = 1 << 20
_SECONDS = 60


def download_archive(url: str, md5: str, folder: Path, inner: str) -> Path:
    """Fetch a tar archive and unpack it, unless it was unpacked before.

    Args:
        url: of the archive.
        md5: digest that its publisher states, in hexadecimal.
        folder: where to unpack it; made if need be.
        inner: the folder that it holds.

    Returns:
        ``folder / inner``.

    Raises:
        SourceError: where it cannot be fetched, is not what was published, or cannot be written;
            the message says what to do.
    """
    target = folder / inner
    if target.is_dir():
        return target
    advice = f"fetch it by hand and unpack it to {target}, or state the path of a copy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            archive = Path(temporary) / "archive"
            found = _fetch(url, archive)
            if found != md5:
                raise SourceError(f"{url}: expected the md5 {md5}, got {found}; {advice}")
            unpacked = Path(temporary) / "unpacked"
            with tarfile.open(archive) as members:
                members.extractall(unpacked, filter="data")
            if not (unpacked / inner).is_dir():
                raise SourceError(f"{url}: expected the folder {inner} in it; {advice}")
            _keep(unpacked / inner, target)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        raise SourceError(f"cannot download {url}: {error}; {advice}") from error
    except tarfile.TarError as error:
        raise SourceError(f"{url}: cannot be unpacked: {error}; {advice}") from error
    except OSError as error:
        raise SourceError(f"cannot download {url} to {folder}: {error}; {advice}") from error
    return target


def _keep(unpacked: Path, target: Path) -> None:
    try:
        unpacked.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was first, with the same files
            raise


def _fetch(url: str, path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url, timeout=_SECONDS) as answer, path.open("wb") as stream:
        while block := answer.read(_BLOCK):
            digest.update(block)
            stream.write(block)
    return digest.hexdigest()
