"""Models that answer queries with scores and have no gradients: endpoints and callables."""

from __future__ import annotations

import hashlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tasks.errors import ModelError


class QueryModel(nn.Module):
    """A model that answers with scores and gives no gradients.

    Args:
        ask: maps uint8 pixels as float images (n, c, h, w) in [0, 1] to scores (n, classes).
        name: what it is called in reports.
        classes: number of scores an image, where it is known.
        origin: what stands for the model in ``repr``: an address, or the source of a callable.
    """

    def __init__(
        self,
        ask: Callable[[Tensor], Tensor],
        name: str,
        classes: int | None,
        origin: bytes = b"",
    ) -> None:
        super().__init__()
        self.ask = ask
        self.name = name
        self.classes = classes
        self.digest = hashlib.sha256(origin).hexdigest()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Query the model; the answer carries no gradients.

        Raises:
            ModelError: where the answer is not one finite row of scores an image.
            ConnectionError: where an endpoint gives no answer, which may pass.
        """
        scores = self.ask(images.detach().cpu())
        shape = (len(images), self.classes) if self.classes else (len(images), -1)
        fits = scores.ndim == 2 and len(scores) == len(images)
        if not fits or self.classes not in (None, scores.shape[1]):
            raise ModelError(f"{self.name}: expected scores {shape}, got {tuple(scores.shape)}")
        if not torch.isfinite(scores).all():
            raise ModelError(f"{self.name}: expected finite scores")
        return scores.to(images.device, torch.float32)

    def __repr__(self) -> str:
        return f"{self.name}@{self.digest[:12]}"


def http_endpoint(url: str, timeout: float) -> Callable[[Tensor], Tensor]:
    """What asks an endpoint for scores; the answer may take so many seconds."""

    def ask(images: Tensor) -> Tensor:
        body = json.dumps({"images": images.tolist()}).encode()
        request = urllib.request.Request(
            url, data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                answer = json.loads(reply.read())
            return torch.tensor(answer["logits"], dtype=torch.float32)
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise ModelError(f"{url}: expected scores, got HTTP status {error.code}") from None
            raise ConnectionError(f"{url}: no answer: HTTP status {error.code}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise ConnectionError(f"{url}: no answer: {reason}") from None
        except (ValueError, KeyError, TypeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise ModelError(f'{url}: expected {{"logits": [[...], ...]}}, got {reason}') from None

    return ask


def python_callable(function: Callable[[Any], Any], name: str) -> Callable[[Tensor], Tensor]:
    """What asks a Python function of the user for scores."""

    def ask(images: Tensor) -> Tensor:
        # a copy, because what is asked must not be changed by who answers
        answer = function(images.numpy().copy())
        try:
            return torch.as_tensor(answer)
        except (TypeError, ValueError, RuntimeError):
            kind = type(answer).__name__
            raise ModelError(f"{name}: expected an array of scores, got {kind}") from None

    return ask
