"""Object detectors from torchvision, from disk, or from the user's own code."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from defender.models.object_detection import (
    ObjectDetector,
    public_class_names,
    torchvision_detector,
)
from tasks.errors import ModelError
from tasks.models import (
    digest_bytes,
    digest_state,
    freeze,
    load_state,
    read_state,
    user_network,
)
from tasks.subject_specs import ModelSpec


def load_object_detector(
    spec: ModelSpec, folder: Path, device: torch.device, field: str = "model"
) -> ObjectDetector:
    """Make the object detector that a specification names.

    Args:
        spec: ``name`` is ``torchvision:<architecture>`` or ``python:<module>:<factory>``, which
            returns a detector built from torchvision's; ``weights`` a state dict, without one
            torchvision's public weights or the factory's own; ``classes`` the number of labels
            of the state dict, the background included, 91 if left out.
        folder: folder of the specification, against which paths and modules are resolved.
        device: where it runs.
        field: what the specification calls it, for messages.

    Returns:
        A frozen detector in evaluation mode, whose ``repr`` is ``name@digest``.

    Raises:
        ModelError: naming the field and what was expected.
    """
    architecture = spec.name.removeprefix("torchvision:")
    if spec.mean is not None or spec.std is not None:
        raise ModelError(f"{field}: expected no mean and std, the detector has its own")
    if architecture != spec.name:
        network = _torchvision(spec, architecture, field)
    elif spec.name.startswith("python:"):
        if spec.classes is not None:
            raise ModelError(f"{field}.classes: expected none, the factory of {spec.name} knows")
        network = user_network(spec.name, folder, f"{field}.name")
    else:
        raise ModelError(
            f"{field}.name: expected an object detector, torchvision:<architecture> or "
            f"python:<module>:<factory>, got {spec.name!r}"
        )
    if spec.weights is not None:
        state = read_state(folder / spec.weights, f"{field}.weights")
        load_state(network, state, spec.weights, f"{field}.weights")
    public = architecture != spec.name and spec.weights is None
    made_of = [digest_state(network.state_dict()), str(network)]
    try:
        detector = ObjectDetector(
            network,
            name=spec.label or spec.name,
            digest=digest_bytes("\n".join(made_of).encode()),
            class_names=public_class_names(architecture) if public else (),
        )
    except TypeError as error:
        raise ModelError(f"{field}.name: {error}") from None
    freeze(detector, device)
    return detector


def _torchvision(spec: ModelSpec, architecture: str, field: str) -> nn.Module:
    public = spec.weights is None
    try:
        return torchvision_detector(architecture, public_weights=public, labels=spec.classes)
    except ValueError as error:
        raise ModelError(f"{field}: {error}") from None
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"{field}.name: the public weights of {architecture} cannot be fetched ({error}); "
            f"give their file as {field}.weights"
        ) from None
