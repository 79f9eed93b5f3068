"""What a training leaves: weights, a model card in words and as JSON, and its curves."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from safetensors.torch import save as save_safetensors
from torch import Tensor

from storage.files import write_atomic
from storage.ledger import digest_of, sha256_file
from tasks.models import load_model
from tasks.specs import DatasetSpec, ModelSpec
from tasks.training import Trainer, read_vouched, write_vouched
from tasks.training_data import TrainingData

INDEX = "training.json"
RULES = 2
"""Version of what a card holds; raising it writes cards again."""

Card = dict[str, Any]


def export(trainer: Trainer) -> Card:
    """Write the averaged weights of a finished training, and the card of what they can do.

    The accuracy on the card is that of the file: it is read back and asked about every held-out
    image. The index comes last; without it the outputs do not count.

    Returns:
        The card.

    Raises:
        StoreError: where the store cannot be written.
        SpecError: where epochs are left to train.
    """
    spec, folder = trainer.spec, trainer.store.run(trainer.spec.name)
    state, seconds = trainer.final_state()
    tensors = portable(state.average, half=spec.half)
    data = save_safetensors(tensors)
    path = folder / spec.weights_name
    (folder / INDEX).unlink(missing_ok=True)
    write_atomic(path, data)
    with trainer.threads():
        mean, std = trainer.normalisation
        source = ModelSpec(name=spec.model.name, weights=str(path.resolve()), mean=mean, std=std)
        model = load_model(source, trainer.folder, trainer.device)
        tallies = trainer.evaluate(model)
    history = [
        {"epoch": number, **record, "held_out": trainer.seen(number)}
        for number, record in enumerate(state.history, start=1)
    ]
    resizes = [repr(pipeline) for pipeline in spec.pipelines]
    shown: list[str | None] = [*resizes] or [None]
    behind = [
        {
            "pipeline": resize,
            "accuracy": tally.accuracy(),
            "balanced_accuracy": tally.balanced_accuracy(),
        }
        for resize, tally in zip(shown, tallies, strict=True)
    ]
    card = {
        "name": spec.name,
        "architecture": spec.model.name,
        "parameters": sum(p.numel() for p in trainer.network().parameters()),
        "weights": {
            "file": spec.weights_name,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "digest": getattr(model, "digest", ""),
            "type": "float16" if spec.half else "float32",
        },
        "normalisation": {"mean": list(mean), "std": list(std)},
        "held_out_accuracy": behind[0]["accuracy"],
        "held_out_behind": behind,
        "note": spec.note,
        "dataset": _dataset(trainer.data, spec.dataset),
        "held_out": _dataset(trainer.held_out, spec.held_out),
        "training": {
            **spec.training.model_dump(),
            **({"pipelines": ", ".join(resizes)} if resizes else {}),
            "batch": spec.batch,
            "seed": spec.seed,
            "steps_per_epoch": trainer.steps_per_epoch,
            "fingerprint": trainer.fingerprint,
        },
        "seconds": {
            "ingest": round(trainer.data.seconds + trainer.held_out.seconds, 1),
            "train": round(seconds, 1),
        },
        "torch": torch.__version__,
        "history": history,
    }
    write_atomic(folder / "card.json", json.dumps(card, indent=1, allow_nan=False).encode())
    write_atomic(folder / "card.md", in_words(card).encode())
    write_atomic(folder / "curves.svg", curves(card).encode())
    files = (spec.weights_name, "card.json", "card.md", "curves.svg")
    write_vouched(
        folder / INDEX,
        {
            "request": _request(trainer),
            "files": {name: sha256_file(folder / name) for name in files},
        },
    )
    return card


def portable(average: dict[str, Tensor], *, half: bool) -> dict[str, Tensor]:
    """The weights of the network alone, as its own state dict names them.

    Args:
        average: averaged weights of the network behind its normalisation.
        half: round floating-point weights to 16 bits.
    """
    result = {}
    for name, value in average.items():
        kind = torch.float16 if half and value.is_floating_point() else value.dtype
        result[name.removeprefix("network.")] = value.detach().to(kind).cpu().contiguous()
    return result


def exported(trainer: Trainer) -> Card | None:
    """The card of a training whose outputs are there, whole, and what is asked for now.

    Both data sets must be ingested.
    """
    folder = trainer.store.run(trainer.spec.name)
    index = read_vouched(folder / INDEX)
    if index is None or index.get("request") != _request(trainer):
        return None
    for name, stated in index["files"].items():
        path = folder / name
        if not path.is_file() or sha256_file(path) != stated:
            return None
    card: Card = json.loads((folder / "card.json").read_bytes())
    return card


def _request(trainer: Trainer) -> str:
    wanted = trainer.spec.model_dump(mode="json", exclude={"compute"})
    made_from = {"training": trainer.fingerprint, "held_out": trainer.held_out.digest}
    return digest_of({"rules": RULES, "spec": wanted, **made_from})


def _dataset(data: TrainingData, spec: DatasetSpec) -> dict[str, Any]:
    options = {k: v for k, v in spec.options.items() if isinstance(v, str | int | float | bool)}
    return {
        "kind": spec.kind,
        **options,
        "images": data.count,
        "rejected": data.rejected,
        "shape": list(data.shape),
        "digest": data.digest,
    }


def in_words(card: Card) -> str:
    """The card as Markdown."""
    weights, training = card["weights"], card["training"]
    seconds = card["seconds"]
    recipe = "\n".join(
        f"| {name.replace('_', ' ')} | {value} |"
        for name, value in training.items()
        if name != "fingerprint"
    )
    figures = "\n".join(_figures(behind) for behind in card["held_out_behind"])
    note = f"\n{card['note'].strip()}\n" if card["note"] else ""
    return f"""# {card["name"]}

A `{card["architecture"]}` classifier trained with `image-defender train`.

| | |
|---|---|
{figures}
| parameters | {card["parameters"]:,} |
| weights | `{weights["file"]}`, {weights["type"]}, {weights["bytes"]:,} bytes |
| SHA-256 of the file | `{weights["sha256"]}` |
| trained on | {_in_words(card["dataset"])} |
| held out | {_in_words(card["held_out"])} |
| time | {seconds["train"]:,.0f} s of training, {seconds["ingest"]:,.0f} s of decoding |
| torch | {card["torch"]} |

Images go in as they are, in [0, 1]; the model itself subtracts the mean \
{card["normalisation"]["mean"]} and divides by {card["normalisation"]["std"]}. The accuracy is \
that of the file, read back after it was written.

The model was trained on clean images. It is not robust: it is there to be attacked.
{note}
## Recipe

| | |
|---|---|
{recipe}

Training `{training["fingerprint"]}`; exponential moving average of the weights.
"""


def _figures(behind: dict[str, Any]) -> str:
    """The rows of one pipeline in the table of a card."""
    accuracy, balanced = behind["accuracy"], behind["balanced_accuracy"]
    where = f", {behind['pipeline']}" if behind["pipeline"] else ""
    return (
        f"| accuracy on held-out images{where} | {_interval(accuracy)}, n = {accuracy['n']:,}) |\n"
        f"| balanced accuracy{where} | {_interval(balanced)}{_recalls(balanced['recalls'])}) |"
    )


def _recalls(recalls: dict[str, float]) -> str:
    if len(recalls) > 10:
        return ""
    return "; recalls " + ", ".join(f"{value:.1%}" for value in recalls.values())


def _interval(figure: dict[str, Any]) -> str:
    low, high = figure["ci_low"], figure["ci_high"]
    return f"{figure['value']:.2%} (95 % interval {low:.2%} to {high:.2%}"


def _in_words(data: dict[str, Any]) -> str:
    left_out = ("kind", "path", "images", "rejected", "shape", "digest")
    options = ", ".join(f"{k} {v}" for k, v in data.items() if k not in left_out)
    size = " x ".join(str(part) for part in data["shape"])
    return (
        f"{data['kind']} ({options}): {data['images']:,} images of {size}, "
        f"{data['rejected']:,} rejected, digest `{data['digest'][:12]}`"
    )


def curves(card: Card) -> str:
    """Loss and accuracy by epoch, as SVG; the same history gives the same text."""
    history = card["history"]
    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    loss.plot(epochs, [record["loss"] for record in history], color="#d9622b")
    loss.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    accuracy.plot(
        epochs,
        [record["accuracy"] for record in history],
        color="#d9622b",
        label="training, augmented",
    )
    seen = [(r["epoch"], r["held_out"]) for r in history if r["held_out"] is not None]
    last = (epochs[-1], card["held_out_accuracy"]["value"])
    seen = [*(point for point in seen if point[0] != last[0]), last]
    accuracy.plot(*zip(*seen, strict=True), "o-", color="#3b82c4", markersize=3, label="held out")
    accuracy.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1))
    accuracy.legend(frameon=False, loc="lower right")
    for axes in (loss, accuracy):
        axes.spines[["top", "right"]].set_visible(False)
    sink = io.StringIO()
    settings: Any = {"svg.hashsalt": card["name"], "svg.fonttype": "none"}
    with matplotlib.rc_context(settings):
        figure.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()


def weights_path(trainer: Trainer) -> Path:
    """Where the exported weights lie."""
    return trainer.store.run(trainer.spec.name) / trainer.spec.weights_name
