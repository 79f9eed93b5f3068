"""Diffusion models in the layout of the diffusers library, from a folder or from the hub."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from defender.diffusion.schedule import NoiseSchedule
from tasks.errors import ModelError

DIFFUSERS = "diffusers:"

WEIGHTS = "diffusion_pytorch_model"
"""Name of a file of weights, without its ending."""
_LAYOUTS = ((None, None), ("unet", "scheduler"))
"""Folders of network and scheduler within a folder: of a model alone, and of a pipeline."""


class DiffusersNetwork(nn.Module):
    """A ``UNet2DModel`` as a network from noisy images and steps to the noise.

    Args:
        network: the model.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.channels = int(network.config.in_channels)
        self.side_unit = 2 ** (len(network.config.block_out_channels) - 1)

    def forward(self, noisy: Tensor, steps: Tensor) -> Tensor:
        """The noise (n, outputs, h, w) in images (n, c, h, w) at steps int64 (n,)."""
        predicted: Tensor = self.network(noisy, steps).sample
        return predicted

    def extra_repr(self) -> str:
        """The options of the model, which its layers do not show."""
        shown = (f"{k}={v!r}" for k, v in sorted(self.network.config.items()) if k[0] != "_")
        return ", ".join(shown)


def diffusers_prior(
    name: str, folder: Path, field: str
) -> tuple[DiffusersNetwork, tuple[int, int] | None, NoiseSchedule]:
    """The network, the size of its images and the noise levels of a model of diffusers.

    Args:
        name: ``diffusers:<folder or name on the hub>``.
        folder: against which a folder is resolved.
        field: the field of the specification that states the name.

    Returns:
        The size is None where the model states none; noise levels that nothing states are the
        thousand along the usual line.

    Raises:
        ModelError: naming the field, where the library or the model is not there, or the model is
            of a kind that is not supported.
    """
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise ModelError(
            f"{field}: {name} needs the package diffusers: {error}; "
            "pip install 'image-defender[diffusion]'"
        ) from None
    source = name.removeprefix(DIFFUSERS)
    if not source:
        raise ModelError(f"{field}: expected {DIFFUSERS}<folder or name on the hub>, got {name!r}")
    local = folder / source
    if local.is_dir():
        inside, scheduler = _layout(local, name, field)
        _refuse_pickles(local / (inside or ""), name, field)
        network = _read(
            UNet2DModel,
            str(local),
            inside,
            name,
            field,
            use_safetensors=True,
            local_files_only=True,
        )
        path = local / (scheduler or "") / "scheduler_config.json"
        noise = json.loads(path.read_bytes()) if path.is_file() else {}
    else:
        network, noise = _from_hub(UNet2DModel, source, name, field)
    config = network.config
    for option in ("class_embed_type", "num_class_embeds"):
        if config.get(option) is not None:
            raise ModelError(f"{field}: {name}: expected a model without classes, got {option}")
    size = config.sample_size
    if isinstance(size, int):
        size = (size, size)
    wanted = None if size is None else (int(size[0]), int(size[1]))
    return DiffusersNetwork(network), wanted, _schedule(noise, name, field)


def _layout(local: Path, name: str, field: str) -> tuple[str | None, str | None]:
    for inside, scheduler in _LAYOUTS:
        if (local / (inside or "") / "config.json").is_file():
            return inside, scheduler
    raise ModelError(f"{field}: {name}: expected a config.json in {local} or its unet, found none")


def _refuse_pickles(folder: Path, name: str, field: str) -> None:
    """Refuse a folder whose weights are pickled only; nothing of them is read."""
    if any(folder.glob(f"{WEIGHTS}*.safetensors")):
        return
    if pickled := next(folder.glob(f"{WEIGHTS}*.bin"), None):
        raise ModelError(
            f"{field}: {name}: expected {WEIGHTS}.safetensors in {folder}, got {pickled.name} "
            "alone, which is pickled; save the model again as safetensors"
        )


def _read(kind: Any, source: str, inside: str | None, name: str, field: str, **options: Any) -> Any:
    if inside is not None:
        options["subfolder"] = inside
    try:
        with warnings.catch_warnings():
            # the library calls its own dependency in a way that is deprecated
            warnings.simplefilter("ignore")
            return kind.from_pretrained(source, low_cpu_mem_usage=False, **options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{field}: {name} cannot be read: {reason}; expected a folder with a config.json or a "
            "name on the hub, which needs a connection unless it was fetched before"
        ) from None


def _from_hub(kind: Any, source: str, name: str, field: str) -> tuple[Any, dict[str, Any]]:
    from diffusers import DDPMScheduler

    failed: ModelError | None = None
    for inside, scheduler in _LAYOUTS:
        try:
            network = _read(kind, source, inside, name, field)
        except ModelError as error:
            failed = failed or error
            continue
        options = {} if scheduler is None else {"subfolder": scheduler}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                noise = dict(DDPMScheduler.load_config(source, **options))
        except (OSError, ValueError):
            noise = {}
        return network, noise
    raise failed or ModelError(f"{field}: {name} cannot be read")


def _schedule(noise: dict[str, Any], name: str, field: str) -> NoiseSchedule:
    for option, expected in (
        ("beta_schedule", "linear"),
        ("prediction_type", "epsilon"),
        ("trained_betas", None),
        ("rescale_betas_zero_snr", False),
    ):
        if (stated := noise.get(option, expected)) != expected:
            raise ModelError(
                f"{field}: {name}: expected a scheduler with {option} {expected}, got {stated!r}"
            )
    usual = NoiseSchedule()
    return NoiseSchedule(
        int(noise.get("num_train_timesteps", usual.steps)),
        float(noise.get("beta_start", usual.first)),
        float(noise.get("beta_end", usual.last)),
    )
