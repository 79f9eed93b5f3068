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
from tasks.card_words import words_of
from tasks.specs import DatasetSpec
from tasks.training import Trainer, read_vouched, write_vouched
from tasks.training_data import TrainingData
from tasks.training_tasks import Card, Pictured

INDEX = "training.json"
RULES = 2
"""Version of what a card holds; raising it writes cards again."""


def export(trainer: Trainer) -> Card:
    """Write the averaged weights of a finished training, and the card of what they can do.

    The figures on the card are those of the file: it is read back and asked about every held-out
    image. The index comes last; without it the outputs do not count.

    Returns:
        The card.

    Raises:
        StoreError: where the store cannot be written.
        SpecError: where epochs are left to train.
    """
    spec, folder = trainer.spec, trainer.outputs
    task = trainer.task
    state, seconds = trainer.final_state()
    path = folder / spec.weights_name
    (folder / INDEX).unlink(missing_ok=True)
    with trainer.threads():
        data = serialised(*task.weights(state.average, trainer.device))
        write_atomic(path, data)
        judged = task.judged(path, trainer.device)
        pictures = task.pictures(path, trainer.device) if isinstance(task, Pictured) else {}
    history = [
        {"epoch": number, **record, "held_out": trainer.seen(number)}
        for number, record in enumerate(state.history, start=1)
    ]
    digest, recipe = judged.pop("digest"), judged.pop("recipe")
    card = {
        "task": task.kind,
        "name": spec.name,
        "architecture": task.name,
        "parameters": sum(p.numel() for p in task.network().parameters()),
        "weights": {
            "file": spec.weights_name,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "digest": digest,
            "type": "float16" if spec.half else "float32",
        },
        **judged,
        "note": spec.note,
        "dataset": _dataset(trainer.data, spec.dataset),
        "held_out": _dataset(trainer.held_out, spec.held_out),
        "training": {
            **recipe,
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
        **({"pictures": list(pictures)} if pictures else {}),
    }
    for name, content in pictures.items():
        write_atomic(folder / name, content)
    write_atomic(folder / "card.json", json.dumps(card, indent=1, allow_nan=False).encode())
    write_atomic(folder / "card.md", in_words(card).encode())
    write_atomic(folder / "curves.svg", curves(card).encode())
    files = (spec.weights_name, "card.json", "card.md", "curves.svg", *pictures)
    write_vouched(
        folder / INDEX,
        {
            "request": _request(trainer),
            "files": {name: sha256_file(folder / name) for name in files},
        },
    )
    return card


def serialised(tensors: dict[str, Tensor], metadata: dict[str, str] | None) -> bytes:
    """A safetensors file; the same content gives the same bytes, whatever the metadata."""
    data = save_safetensors(tensors, metadata)
    if metadata is None:
        return data
    # the library writes metadata in another order every time
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def exported(trainer: Trainer) -> Card | None:
    """The card of a training whose outputs are there, whole, and what is asked for now.

    Both data sets must be ingested.
    """
    folder = trainer.outputs
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
    # cards of classifiers were there before there was a task to name
    unnamed = {"compute", "task"} if trainer.task.kind == "classify" else {"compute"}
    wanted = trainer.spec.model_dump(mode="json", exclude=unnamed)
    made_from = {"training": trainer.fingerprint, "held_out": trainer.held_out.digest}
    return digest_of({"rules": RULES, "spec": wanted, **made_from})


def _dataset(data: TrainingData, spec: DatasetSpec) -> dict[str, Any]:
    options = {k: v for k, v in spec.options.items() if isinstance(v, str | int | float | bool)}
    patterns = {k: v for k in ("include", "exclude") if (v := getattr(spec, k)) is not None}
    return {
        "kind": spec.kind,
        **options,
        **patterns,
        **data.sizes(),
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
    words = words_of(card)
    figures = "\n".join(words.rows(card))
    pictures = "".join(f"\n![{name}]({name})\n" for name in card.get("pictures", ()))
    note = f"\n{card['note'].strip()}\n" if card["note"] else ""
    return f"""# {card["name"]}

{words.opening(card)}

| | |
|---|---|
{figures}
| parameters | {card["parameters"]:,} |
| weights | `{weights["file"]}`, {weights["type"]}, {weights["bytes"]:,} bytes |
| SHA-256 of the file | `{weights["sha256"]}` |
| trained on | {_in_words(card["dataset"])} |
| held out | {_in_words(card["held_out"])} |
| time | {seconds["train"]:,.0f} s of training, {seconds["ingest"]:,.0f} s of {words.preparation} |
| torch | {card["torch"]} |

{words.remarks(card)}
{pictures}{note}
## Recipe

| | |
|---|---|
{recipe}

Training `{training["fingerprint"]}`; exponential moving average of the weights.
"""


def _in_words(data: dict[str, Any]) -> str:
    left_out = ("kind", "path", "images", "versions", "rejected", "shape", "digest")
    options = ", ".join(f"{k} {v}" for k, v in data.items() if k not in left_out)
    size = " x ".join(str(part) for part in data["shape"])
    versions = f" in {data['versions']:,} versions" if "versions" in data else ""
    return (
        f"{data['kind']} ({options}): {data['images']:,} images of {size}{versions}, "
        f"{data['rejected']:,} rejected, digest `{data['digest'][:12]}`"
    )


def curves(card: Card) -> str:
    """Loss and figure by epoch, as SVG; the same history gives the same text."""
    history, words = card["history"], words_of(card)
    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    loss, reached = figure.subplots(1, 2)
    loss.plot(epochs, [record["loss"] for record in history], color="#d9622b")
    loss.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    if all("accuracy" in record for record in history):
        reached.plot(
            epochs,
            [record["accuracy"] for record in history],
            color="#d9622b",
            label="training, augmented",
        )
    seen = [(r["epoch"], r["held_out"]) for r in history if r["held_out"] is not None]
    if (value := words.last(card)) is not None:
        last = (epochs[-1], value)
        seen = [*(point for point in seen if point[0] != last[0]), last]
    if seen:
        reached.plot(
            *zip(*seen, strict=True), "o-", color="#3b82c4", markersize=3, label="held out"
        )
    values = [value for _, value in seen]
    limits = (min([0.0, *values]), 1.0)
    if max(values, default=0.0) > 1:
        # decibels, which begin nowhere
        limits = (min(values) - 1, max(values) + 1)
    reached.set(xlabel="epoch", ylabel=words.figure, ylim=limits)
    if seen:
        reached.legend(frameon=False, loc="lower right")
    for axes in (loss, reached):
        axes.spines[["top", "right"]].set_visible(False)
    sink = io.StringIO()
    settings: Any = {"svg.hashsalt": card["name"], "svg.fonttype": "none"}
    with matplotlib.rc_context(settings):
        figure.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()


def weights_path(trainer: Trainer) -> Path:
    """Where the exported weights lie."""
    return trainer.outputs / trainer.spec.weights_name
