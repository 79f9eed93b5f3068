"""Two finished runs side by side: what got worse, by how much, and what else differs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defender.metrics import METRICS
from defender.metrics.paired_rates import paired_difference
from defender.metrics.rates import mean_interval
from storage.errors import StorageError
from storage.files import store_root
from tasks.errors import SpecError
from tasks.history import before, read_entry, results_digest
from tasks.per_image import Images, Sample
from tasks.requirements import DETECTION, place_of

if TYPE_CHECKING:
    from storage.files import Place

Row = dict[str, Any]
NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})(?:@(\d+))?")
LOWER = ("false_positive_rate",)
DRAWS = 2000
"""Bootstrap samples of a difference whose images differ."""
NO_IMAGES = "per-image rows of both runs are needed"
NO_MEAN = "not a mean over images"
NO_COMMON = "no image in common"


@dataclass(frozen=True)
class Finished:
    """A finished run, present or past.

    Args:
        title: what it is called in the comparison.
        summary: what its summary or its entry in the history holds.
        images: its per-image columns, None where they are gone.
    """

    title: str
    summary: dict[str, Any]
    images: Images | None


def open_finished(run: str, store: str) -> Finished:
    """Find a finished run.

    Args:
        run: a folder or its URL, a ``summary.json``, a file of a history; or a name, which
            ``@1`` makes the result before the present one, ``@2`` the one before that.
        store: folder or URL of the store.

    Raises:
        SpecError: where it is none of these, or damaged.
    """
    if "://" in run:
        return _present(run, store_root(run))
    path = Path(run).expanduser()
    if path.is_dir():
        return _present(run, path)
    if path.is_file():
        if path.name == "summary.json":
            return _present(run, path.parent)
        entry = read_entry(path)
        if entry is None:
            raise SpecError(f"{run}: expected summary.json or a file of a run's history")
        return Finished(_title(entry, path.stem), entry, None)
    match = NAMED.fullmatch(run)
    if match is None:
        raise SpecError(f"{run}: expected a run's folder, summary.json or name, found none")
    folder = store_root(store) / match[1]
    present = _present(run, folder, hint=f" in {store}")
    back = int(match[2] or 0)
    if not back:
        return present
    listed = list(before(folder, results_digest(present.summary)))
    if back > len(listed):
        raise SpecError(
            f"{run}: expected a run with {back} earlier results, {match[1]} has {len(listed)}"
        )
    name, entry = listed[back - 1]
    return Finished(_title(entry, name.removesuffix(".json")), entry, None)


def _present(run: str, folder: Place, hint: str = "") -> Finished:
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_bytes())
        results_digest(summary)
        images = Images(folder, summary)
    except FileNotFoundError:
        raise SpecError(f"{run}: expected a finished run{hint}, found no {path.name}") from None
    except (OSError, StorageError, ValueError, KeyError, TypeError) as error:
        raise SpecError(f"{run}: cannot read {path}: {error}") from None
    return Finished(summary["name"], summary, images)


def _title(entry: dict[str, Any], stem: str) -> str:
    return f"{entry['name']} until {entry['replaced'][:10]} ({stem.rpartition('-')[2]})"


def compare(first: Finished, second: Finished) -> dict[str, Any]:
    """Compare two runs, the second with the first.

    Returns:
        ``first`` and ``second`` (name, version, data set, model); ``rows`` that both have, what got
        worse most first; ``only_first`` and ``only_second``; ``differs``: fields in which the runs
        differ beside their rows.
    """
    mine = {place_of(row): row for row in first.summary["rows"]}
    other = {place_of(row): row for row in second.summary["rows"]}
    common = [(mine[place], other[place]) for place in mine if place in other]
    rows = [_compared(a, b, first, second) for a, b in common]
    return {
        "first": _described(first),
        "second": _described(second),
        "rows": sorted(rows, key=_order),
        "only_first": [row for place, row in mine.items() if place not in other],
        "only_second": [row for place, row in other.items() if place not in mine],
        "differs": list(differing(first.summary, second.summary)),
    }


def _described(run: Finished) -> dict[str, Any]:
    summary = run.summary
    dataset = {name: summary["dataset"].get(name) for name in ("kind", "digest", "images")}
    stated = {name: summary.get(name) for name in ("name", "version", "model", "seed", "device")}
    return {"title": run.title, **stated, "dataset": dataset}


def lower_is_better(metric: str) -> bool:
    """Whether a smaller figure is better for whoever defends."""
    if metric in METRICS:
        return METRICS[metric].better == "lower"
    return metric in LOWER


def is_share(metric: str) -> bool:
    """Whether a figure lies in [0, 1], so that its differences speak for themselves."""
    if metric in METRICS:
        kinds = ("rate", "class", "mask", "verification")
        return METRICS[metric].kind in kinds or metric in ("ssim", "ms_ssim", "quality", "srcc")
    return metric in DETECTION


def _compared(a: Row, b: Row, first: Finished, second: Finished) -> Row:
    figures = ("value", "ci_low", "ci_high", "n")
    metric, difference, change = a["metric"], None, "unknown"
    if a["value"] is not None and b["value"] is not None:
        difference = b["value"] - a["value"]
        rises = difference > 0
        change = "better" if rises != lower_is_better(metric) else "worse"
        change = "same" if difference == 0 else change
    interval, reason = (None, "no value") if difference is None else _interval(a, b, first, second)
    return {
        **{name: a[name] for name in ("attack", "purifier", "detector", "policy", "metric")},
        "first": {name: a[name] for name in figures},
        "second": {name: b[name] for name in figures},
        "difference": difference,
        "change": change,
        "interval": interval,
        "no_interval": reason,
    }


def _order(row: Row) -> tuple[int, float]:
    """What got worse first, most of it in front; then what cannot be told, is equal, is better."""
    rank = ("worse", "unknown", "same", "better").index(row["change"])
    return rank, (size(row) if row["change"] == "better" else -size(row))


def size(row: Row) -> float:
    """How large a difference is: of shares as it is, of others as a part of the larger figure."""
    if row["difference"] is None:
        return 0.0
    if is_share(row["metric"]):
        return abs(float(row["difference"]))
    scale = max(abs(row["first"]["value"]), abs(row["second"]["value"]))
    return abs(row["difference"]) / scale if scale else 0.0


def _interval(
    a: Row, b: Row, first: Finished, second: Finished
) -> tuple[dict[str, Any] | None, str | None]:
    """The 95 % interval of a difference over the images that both runs have, or why not."""
    if first.images is None or second.images is None:
        return None, NO_IMAGES
    one, other = first.images.sample(a), second.images.sample(b)
    if one is None or other is None:
        return None, NO_MEAN
    return paired(one, other, second.images.spec.seed)


def paired(one: Sample, other: Sample, seed: int) -> tuple[dict[str, Any] | None, str | None]:
    """The difference of two figures over the images that both rest on, with its interval.

    Shares of the same images: Newcombe's interval for paired rates. Means over the same images:
    BCa bootstrap of the images' differences. Where a figure rests on other images in each run, as
    attack success does, which is of those that were right before: a bootstrap that draws images
    with whatever they contribute to both.

    Returns:
        ``difference``, ``low``, ``high``, ``images``, ``all`` (no image is in one run only) and
        ``method``; or None, and why.
    """
    if np.array_equal(one.ids, other.ids):
        left = right = np.arange(len(one.ids))
    else:
        _, left, right = np.intersect1d(one.ids, other.ids, assume_unique=True, return_indices=True)
    x, y, in_x, in_y = one.values[left], other.values[right], one.among[left], other.among[right]
    used = in_x | in_y
    if not in_x.any() or not in_y.any():
        return None, NO_COMMON
    whole = int(in_x.sum()) == int(one.among.sum()) and int(in_y.sum()) == int(other.among.sum())
    if not np.array_equal(in_x, in_y):
        method = "paired bootstrap"
        found = _resampled(x, y, in_x, in_y, seed)
    elif one.rate and other.rate:
        method = "newcombe"
        found = paired_difference(y[used] == 1, x[used] == 1)
    else:
        method = "paired bootstrap"
        change = y[used] - x[used]
        found = (float(change.mean()), *mean_interval(change, seed=seed))
    if not all(math.isfinite(number) for number in found):
        return None, "too few images in common"
    difference, low, high = found
    return {
        "difference": difference,
        "low": low,
        "high": high,
        "images": int(used.sum()),
        "all": whole,
        "method": method,
    }, None


def _resampled(x: Any, y: Any, in_x: Any, in_y: Any, seed: int) -> tuple[float, float, float]:
    """Difference of two means over parts of the same images, and its percentile interval."""
    used = np.flatnonzero(in_x | in_y)
    columns = np.stack(
        [np.where(in_x, x, 0.0)[used], in_x[used], np.where(in_y, y, 0.0)[used], in_y[used]]
    ).astype(np.float64)
    generator, found = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        picked = generator.integers(0, len(used), len(used))
        sums = columns @ np.bincount(picked, minlength=len(used))
        if sums[1] and sums[3]:
            found.append(sums[2] / sums[3] - sums[0] / sums[1])
    sums = columns.sum(axis=1)
    difference = float(sums[2] / sums[3] - sums[0] / sums[1])
    if len(found) < DRAWS:  # in some samples a figure rests on no image
        return difference, math.nan, math.nan
    low, high = np.quantile(found, (0.025, 0.975))
    return difference, float(low), float(high)


def differing(first: dict[str, Any], second: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Fields in which two runs differ: what they ran on, with what, and how."""
    for path in (
        *("name", "version", "device"),
        *("dataset.kind", "dataset.digest", "dataset.images", "dataset.rejected"),
        *("model.name", "model.digest"),
    ):
        a, b = _reached(first, path), _reached(second, path)
        if a != b:
            yield {"field": path, "first": a, "second": b}
    mine, other = dict(_flat(first["spec"], "spec")), dict(_flat(second["spec"], "spec"))
    for path in dict.fromkeys([*mine, *other]):
        if path != "spec.name" and mine.get(path) != other.get(path):
            yield {"field": path, "first": mine.get(path), "second": other.get(path)}


def _reached(content: Any, path: str) -> Any:
    for part in path.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _flat(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _flat(value, f"{path}.{name}")
    elif isinstance(content, list) and any(isinstance(value, dict | list) for value in content):
        for i, value in enumerate(content):
            yield from _flat(value, f"{path}[{i}]")
    else:
        yield path, content
