from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from defender.purifiers import GaussianNoise
from flows.schedule import chunk_order, drive
from storage.images import read_images
from storage.scores import read_rows
from tasks.errors import ModelError, SpecError
from tasks.survey import Survey, Work, survey
from tests import toy


def stored(state: Survey, name: str) -> dict[str, bytes]:
    """The stored images of a node by image id."""
    result = {}
    for index in range(state.chunks):
        rows = read_rows(state.bench.store.rows(state.done[("ingest", index)].ref))
        images = read_images(state.bench.store.images(state.done[(name, index)].ref))
        for identifier, image in zip(rows["id"].to_pylist(), images, strict=True):
            result[identifier] = image.tobytes()
    return result


def rows_of(state: Survey, name: str) -> dict[str, tuple[Any, ...]]:
    result = {}
    for index in range(state.chunks):
        for row in read_rows(state.bench.store.rows(state.done[(name, index)].ref)).to_pylist():
            result[row.pop("id")] = tuple(map(str, row.values()))
    return result


def everything(state: Survey) -> dict[str, dict[str, Any]]:
    return {
        node.name: stored(state, node.name)
        if node.kind in ("ingest", "attack", "purify")
        else rows_of(state, node.name)
        for node in state.plan
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    state, _ = toy.run(toy.bench(tmp_path_factory.mktemp("reference")))
    return everything(state)


@pytest.mark.parametrize("chunk_size", [8, 32])
def test_chunk_size_does_not_change_results(
    tmp_path: Path, reference: dict[str, Any], chunk_size: int
) -> None:
    dataset = {"kind": "builtin:shapes", "count": 48, "chunk_size": chunk_size}
    state, _ = toy.run(toy.bench(tmp_path, dataset=dataset))
    assert everything(state) == reference


@pytest.mark.parametrize("order", ["backward", "shuffled"])
def test_order_does_not_change_results(
    tmp_path: Path, reference: dict[str, Any], order: str
) -> None:
    bench = toy.bench(tmp_path)
    state, _ = toy.run(bench, chunk_order(3, order, seed=3))
    assert everything(state) == reference


def test_workers_do_not_change_results(tmp_path: Path, reference: dict[str, Any]) -> None:
    state = survey(toy.bench(tmp_path))
    with ThreadPoolExecutor(2) as pool:
        drive(
            state,
            range(state.chunks),
            lambda work: pool.submit(toy.compute, state, work),
            window=4,
            finished=lambda work, receipt: None,
        )
    assert everything(state) == reference


def test_a_finished_run_computes_nothing(tmp_path: Path) -> None:
    _, first = toy.run(toy.bench(tmp_path))
    state, second = toy.run(toy.bench(tmp_path))
    assert len(first) == state.total
    assert second == []
    assert state.left == 0


def test_a_second_spec_shares_the_prefix(tmp_path: Path) -> None:
    toy.run(toy.bench(tmp_path))
    more = {"name": "other", "purifiers": [{"name": "BitDepth", "bits": 4, "label": "bits"}]}
    _, made = toy.run(toy.bench(tmp_path, **more))
    assert {work.node.kind for work in made} == {"purify", "score"}
    assert {work.node.purifier for work in made} == {"bits"}


def test_a_limit_shares_whole_chunks_with_the_full_run(tmp_path: Path) -> None:
    dataset = {"kind": "builtin:shapes", "count": 48, "chunk_size": 16}
    toy.run(toy.bench(tmp_path, dataset={**dataset, "limit": 32}))
    _, made = toy.run(toy.bench(tmp_path, dataset=dataset))
    assert {work.index for work in made} == {2}


def photographs(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(sum(name.encode()))
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)


def test_one_new_image_costs_one_chunk(tmp_path: Path) -> None:
    images = tmp_path / "images"
    photographs(images, [f"cat/{i:02}.png" for i in range(20)])
    dataset = {"kind": "folder", "path": str(images), "chunk_size": 8}
    toy.run(toy.bench(tmp_path, dataset=dataset))
    photographs(images, ["cat/00a.png"])
    state, made = toy.run(toy.bench(tmp_path, dataset=dataset))
    assert {work.index for work in made} == {2}
    assert len(made) == len(state.plan.nodes)


def test_a_seed_changes_only_what_depends_on_it(tmp_path: Path) -> None:
    toy.run(toy.bench(tmp_path))
    _, made = toy.run(toy.bench(tmp_path, seed=1))
    assert "ingest" not in {work.node.kind for work in made}
    assert "attack" in {work.node.kind for work in made}


@pytest.mark.parametrize("name", ["ingest", "attack/IFGSM", "score/none/none"])
@pytest.mark.parametrize("damage", ["delete", "flip"])
def test_damage_is_recomputed_and_nothing_else(tmp_path: Path, name: str, damage: str) -> None:
    state, _ = toy.run(toy.bench(tmp_path))
    node = next(n for n in state.plan if n.name.startswith(name))
    mark = state.bench.store.ledger(node.fingerprint).read(state.done[(node.name, 1)].ref.key)
    assert mark is not None
    victim = next(f for f in mark.files if "/c/" in f or f.startswith("rows/"))
    path = state.bench.store.stage(node.fingerprint) / victim
    whole = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    findings: list[Any] = []
    survey(toy.bench(tmp_path), found=findings.append)
    assert {f.path for f in findings} == {victim}
    _, made = toy.run(toy.bench(tmp_path))
    assert [(work.node.name, work.index) for work in made] == [(node.name, 1)]
    assert path.read_bytes() == whole


def test_a_crash_between_write_and_mark_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"n": 0}

    class Killed(BaseException):
        pass

    from storage.ledger import Ledger, Mark

    write = Ledger.write

    def crash(self: Ledger, mark: Mark) -> None:
        calls["n"] += 1
        if calls["n"] == 5:
            raise Killed
        write(self, mark)

    monkeypatch.setattr(Ledger, "write", crash)
    with pytest.raises(Killed):
        toy.run(toy.bench(tmp_path))
    monkeypatch.undo()
    state, made = toy.run(toy.bench(tmp_path))
    assert len(made) == state.total - 4
    assert state.left == 0


def test_a_fault_every_third_call_ends_with_the_same_bytes(tmp_path: Path) -> None:
    calm, _ = toy.run(toy.bench(tmp_path / "calm"))
    calls = 0
    for _attempt in range(100):
        bench = toy.bench(tmp_path / "storm")
        bench.catalogue(keep=True)
        state = survey(bench)
        if not state.left:
            break

        def submit(work: Work, state: Survey = state) -> toy.Finished:
            def action() -> dict[str, Any]:
                nonlocal calls
                calls += 1
                if calls % 3 == 0:
                    raise OSError("a passing fault")
                return toy.compute(state, work)

            return toy.Finished(action)

        try:
            drive(
                state,
                range(state.chunks),
                submit,
                window=2,
                finished=lambda work, receipt: None,
            )
        except OSError:
            continue
    pair = (tmp_path / "calm", tmp_path / "storm")
    for one, two in (pair, pair[::-1]):
        for path in (one / "store/data").rglob("*"):
            if path.is_file() and path.parent.name != "marks":
                other = two / path.relative_to(one)
                assert path.read_bytes() == other.read_bytes()
    assert calm.total == len(list((tmp_path / "storm/store/data").glob("*/marks/*.json")))


def test_mixed_sizes_and_rejected_files(tmp_path: Path) -> None:
    images = tmp_path / "images"
    photographs(images, [f"a/{i}.png" for i in range(5)])
    random = np.random.default_rng(0)
    for i in range(4):
        pixels = random.integers(0, 256, (40, 24 + 8 * (i % 2), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / "a" / f"m{i}.png")
    (images / "a" / "broken.png").write_bytes(b"\x89PNG\r\n")
    dataset = {"kind": "folder", "path": str(images), "chunk_size": 4}
    state, _ = toy.run(toy.bench(tmp_path, dataset=dataset))
    sizes = [
        image.shape
        for index in range(state.chunks)
        for image in read_images(
            state.bench.store.images(state.done[("purify/none/median", index)].ref)
        )
    ]
    assert sorted(set(sizes)) == [(3, 32, 32), (3, 40, 24), (3, 40, 32)]
    assert len(sizes) == 9
    from tasks.outputs import rejected_rows

    assert rejected_rows(state)["name"].to_pylist() == ["a/broken.png"]


def test_a_chunk_of_rejects_only(tmp_path: Path) -> None:
    images = tmp_path / "images"
    photographs(images, ["a/0.png", "a/1.png"])
    for i in range(4):
        (images / "a" / f"b{i}.png").write_bytes(b"no image")
    dataset = {"kind": "folder", "path": str(images), "chunk_size": 2}
    state, _ = toy.run(toy.bench(tmp_path, dataset=dataset))
    assert [state.done[("ingest", i)].images for i in range(3)] == [2, 0, 0]
    _, made = toy.run(toy.bench(tmp_path, dataset=dataset))
    assert made == []


def test_labels_beyond_the_model_are_named(tmp_path: Path) -> None:
    images = tmp_path / "images"
    photographs(images, [f"{i:02}/0.png" for i in range(12)])
    dataset = {"kind": "folder", "path": str(images), "chunk_size": 12}
    with pytest.raises(ModelError, match="has 10 outputs, but the dataset holds label 11"):
        toy.run(toy.bench(tmp_path, dataset=dataset))


def test_attacked_images_keep_the_budget_as_stored(tmp_path: Path) -> None:
    state, _ = toy.run(toy.bench(tmp_path))
    attack = next(node.name for node in state.plan if node.kind == "attack")
    clean, attacked = stored(state, "ingest"), stored(state, attack)

    def levels(pixels: bytes) -> np.ndarray:
        return np.frombuffer(pixels, np.uint8).astype(int)

    largest = max(int(np.abs(levels(clean[i]) - levels(a)).max()) for i, a in attacked.items())
    assert 0 < largest <= 8


def test_precomputed_attacks_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    photographs(folder / "clean", [f"a/{i}.png" for i in range(5)])
    shutil.copytree(folder / "clean", folder / "theirs")
    photographs(folder / "theirs", ["a/3.png"])
    spoiled = np.full((32, 32, 3), 9, np.uint8)
    Image.fromarray(spoiled).save(folder / "theirs/a/3.png")
    state, _ = toy.run(
        toy.bench(
            tmp_path,
            dataset={"kind": "paired", "path": str(folder), "chunk_size": 4},
            attacks=[{"name": "precomputed", "folder": "theirs", "label": "theirs"}],
        )
    )
    clean, attacked = stored(state, "ingest"), stored(state, "attack/theirs")
    assert sum(clean[i] != attacked[i] for i in clean) == 1
    assert spoiled.transpose(2, 0, 1).tobytes() in attacked.values()
    photographs(folder / "theirs", ["a/0.png"])
    Image.fromarray(spoiled).save(folder / "theirs/a/0.png")
    _, made = toy.run(
        toy.bench(
            tmp_path,
            dataset={"kind": "paired", "path": str(folder), "chunk_size": 4},
            attacks=[{"name": "precomputed", "folder": "theirs", "label": "theirs"}],
        )
    )
    assert {work.index for work in made} == {0}


@pytest.mark.parametrize("randomness", ["known", "unknown"])
def test_an_attacker_may_know_the_draw_of_a_random_defence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, randomness: str
) -> None:
    """With known randomness nothing but the draws of the purify stage is ever seen."""
    original, seen = GaussianNoise.__call__, set[int]()

    def spied(self: GaussianNoise, images: Tensor, *, seeds: Tensor, **more: Any) -> Tensor:
        seen.update(seeds.tolist())
        return original(self, images, seeds=seeds, **more)

    monkeypatch.setattr(GaussianNoise, "__call__", spied)
    climb = {"name": "APGD", "label": "in", "epsilon": 0.1, "steps": 2, "through": "noise"}
    bench = toy.bench(
        tmp_path,
        attacks=[{**climb, "randomness": randomness}],
        purifiers=[{"name": "gaussiannoise(0.1)", "label": "noise"}],
        detectors=[],
    )
    images = sum(work.node.kind == "ingest" for work in toy.run(bench)[1]) * 16
    assert (len(seen) == images) == (randomness == "known")


@pytest.mark.parametrize(
    "changes",
    [
        {"through": None},
        {"draws": 2},
        {"strength": {"linf": 0.1, "images": 4}},
        {"name": "UAP"},
    ],
    ids=str,
)
def test_known_randomness_is_of_one_draw_and_one_image(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    attack = {"name": "PGD", "epsilon": 0.1, "step_size": 0.1, "steps": 2, "through": "median"}
    attack |= {"randomness": "known", **changes}
    if attack["name"] == "UAP":
        attack = {"name": "UAP", "through": "median", "randomness": "known"}
    with pytest.raises(SpecError, match=r"attacks\[0\]\.randomness: known"):
        toy.bench(tmp_path, attacks=[attack]).check()


def test_an_attack_through_a_purifier_is_adaptive(tmp_path: Path) -> None:
    from tasks.summary import Summary

    plain = {"name": "IFGSM", "label": "plain", "epsilon": 0.1, "step_size": 0.02, "steps": 3}
    climb = {"name": "APGD", "epsilon": 0.1, "steps": 2}
    attacks = [
        plain,
        {**plain, "label": "bpda", "through": "median"},
        {**plain, "label": "eot", "through": "median", "draws": 2},
        {**plain, "label": "exact", "through": "median", "backward": "exact", "draws": 2},
        {**climb, "label": "own eot", "eot": 2, "through": "median"},
        {**climb, "label": "one draw", "eot": 0, "through": "median"},
    ]
    state, _ = toy.run(toy.bench(tmp_path, attacks=attacks))
    images = {label["label"]: stored(state, f"attack/{label['label']}") for label in attacks}
    assert images["plain"] != images["bpda"] != images["exact"]
    rows = Summary(state).rows()
    draws = {row["attack"]: (row["through"], row["draws"]) for row in rows}
    assert draws["plain"] == draws["none"] == ("none", 1)
    assert draws["eot"] == draws["own eot"] == draws["exact"] == ("median", 2)
    assert draws["bpda"] == draws["one draw"] == ("median", 1)
    threats = {row["attack"]: row["threat"] for row in rows}
    assert threats == {
        "none": "none",
        "plain": "oblivious",
        "bpda": "bpda",
        "eot": "eot",
        "exact": "full-gradient",
        "own eot": "eot",
        "one draw": "bpda",
    }
