from __future__ import annotations

import json
import pickle
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from defender.attacks import IFGSM, Square
from defender.models.classifiers import shapes_cnn
from defender.norms import quantise_within
from defender.objectives import Misclassify
from storage.sources import Shapes
from tasks.errors import ModelError
from tasks.models import MODELS, digest_state, load_model, load_state, read_state
from tasks.subject_specs import ModelSpec

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
OWN = "python:tests.tasks.small_networks:linear"
IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def load(folder: Path = ROOT, **fields: Any) -> nn.Module:
    return load_model(ModelSpec(**fields), folder, CPU)


def state_of(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return MODELS[name].factory().state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_weights_of_a_file_beside_the_specification(tmp_path: Path, name: str, suffix: str) -> None:
    state = state_of(name)
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    model = load(tmp_path, name=name, weights=path.name)
    assert model.training is False
    assert not any(p.requires_grad for p in model.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key.removeprefix("network.")])
    assert re.fullmatch(rf"{name}@[0-9a-f]{{12}}", repr(model))


def test_the_digest_covers_weights_normalisation_and_architecture() -> None:
    same = [repr(load(name="shapes-cnn")) for _ in range(2)]
    other = repr(load(name="shapes-cnn", mean=(0.4, 0.5, 0.5)))
    wider = repr(load(name="shapes-cnn", std=(0.3, 0.25, 0.25)))
    assert same[0] == same[1]
    assert len({same[0], other, wider}) == 3
    state = nn.Linear(2, 2).state_dict()
    assert digest_state(state) != digest_state({k: v + 1 for k, v in state.items()})


@pytest.mark.parametrize("nested", ["state_dict", "model"])
def test_a_state_dict_inside_a_checkpoint(tmp_path: Path, nested: str) -> None:
    torch.save({nested: state_of("shapes-cnn"), "epoch": 3}, tmp_path / "w.pt")
    assert load(tmp_path, name="shapes-cnn", weights="w.pt").training is False


def test_half_precision_is_computed_in_single(tmp_path: Path) -> None:
    halved = {
        k: v.half() if v.is_floating_point() else v for k, v in state_of("shapes-cnn").items()
    }
    save_file(halved, tmp_path / "w.safetensors")
    model = load(tmp_path, name="shapes-cnn", weights="w.safetensors")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_name_says_which_weights(tmp_path: Path) -> None:
    state = state_of("shapes-cnn")
    save_file(state, tmp_path / "a.safetensors")
    state["head.bias"] = state["head.bias"] + 1e-7
    save_file(state, tmp_path / "b.safetensors")
    names = {repr(load(tmp_path, name="shapes-cnn", weights=f"{x}.safetensors")) for x in "ab"}
    assert len(names) == 2
    labelled = load(tmp_path, name="shapes-cnn", weights="a.safetensors", label="mine")
    assert repr(labelled).startswith("mine@")
    assert len(repr(labelled)) == len("mine@") + 12


def test_normalisation_belongs_to_the_model(tmp_path: Path) -> None:
    save_file(state_of("shapes-cnn"), tmp_path / "w.safetensors")
    network = shapes_cnn()
    load_state(network, read_state(tmp_path / "w.safetensors"), "w")
    network.eval()
    common: dict[str, Any] = {"name": "shapes-cnn", "weights": "w.safetensors"}
    own = load(tmp_path, **common, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    shipped = load(tmp_path, **common)
    with torch.no_grad():
        torch.testing.assert_close(own(IMAGES), network(IMAGES))
        torch.testing.assert_close(shipped(IMAGES), network((IMAGES - 0.5) / 0.25))


def test_a_tensor_of_the_wrong_shape_is_named(tmp_path: Path) -> None:
    state = {**state_of("shapes-cnn"), "head.weight": torch.zeros(5, 32)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"head.weight: expected shape \(10, 32\), got \(5, 32\)"):
        load(tmp_path, name="shapes-cnn", weights="w.safetensors")


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    state = state_of("shapes-cnn")
    del state["stem.bias"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"expected a tensor stem\.bias, found none"):
        load(tmp_path, name="shapes-cnn", weights="w.safetensors")


def test_a_tensor_too_many_is_named(tmp_path: Path) -> None:
    save_file({**state_of("shapes-cnn"), "extra": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="unexpected tensor extra"):
        load(tmp_path, name="shapes-cnn", weights="w.safetensors")


def test_counters_of_batches_may_be_missing(tmp_path: Path) -> None:
    state = {k: v for k, v in state_of("shapes-cnn").items() if "num_batches" not in k}
    save_file(state, tmp_path / "w.safetensors")
    assert load(tmp_path, name="shapes-cnn", weights="w.safetensors").training is False


class Trap:
    """Unpickling this would run code."""

    sprung: ClassVar[list[str]] = []

    def __reduce__(self) -> Any:
        return (Trap.sprung.append, ("sprung",))


@pytest.mark.parametrize("content", ["pickle", "module", "numbers", "text", "empty"])
def test_files_with_anything_but_tensors_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "w.pt"
    if content == "pickle":
        path.write_bytes(pickle.dumps({"w": Trap()}))
    elif content == "module":
        torch.save(shapes_cnn(), path)
    elif content == "numbers":
        torch.save({"w": 3}, path)
    else:
        path.write_text("weights" if content == "text" else "")
    with pytest.raises(ModelError, match=r"model\.weights: .*w\.pt: expected a"):
        load(tmp_path, name="shapes-cnn", weights="w.pt")
    assert not Trap.sprung


def test_damaged_safetensors_and_absent_files(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(state_of("shapes-cnn"), path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ModelError, match=r"w\.safetensors is not safetensors"):
        load(tmp_path, name="shapes-cnn", weights="w.safetensors")
    with pytest.raises(ModelError, match=r"expected a file, got .*no\.pt: No such file"):
        load(tmp_path, name="shapes-cnn", weights="no.pt")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet", "model.name: expected one of cifar-resnet, cifar-resnet-wide, shapes-cnn, "),
        ("torchvision:resnet19", "expected a torchvision classifier, got 'resnet19'"),
        ("torchvision:fcn_resnet50", "expected a torchvision classifier"),
        ("python:tests.tasks.small_networks", "expected <module>:<name>|has no|cannot import"),
        ("python:no_such_module:make", "cannot import no_such_module"),
        ("python:tests.tasks.small_networks:no", "has no 'no'"),
        ("python:tests.tasks.small_networks:nothing", "to return a torch module, got None"),
        ("callable:nothing", "expected <module>:<name>, got 'nothing'"),
    ],
)
def test_unknown_names(name: str, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        load(name=name)


def test_a_deviation_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected numbers above 0, got \[0\.0\]"):
        ModelSpec(name="shapes-cnn", std=(0.0,))


def test_a_model_of_the_user(tmp_path: Path) -> None:
    torch.manual_seed(2)
    plain = load(name=OWN)
    assert repr(plain).startswith(f"{OWN}@")
    state = {
        k.removeprefix("network."): (v + 1).contiguous() for k, v in plain.state_dict().items()
    }
    save_file(state, tmp_path / "w.safetensors")
    model = load(name=OWN, weights=str(tmp_path / "w.safetensors"))
    assert torch.equal(model.state_dict()["network.4.bias"], state["4.bias"])


def test_a_module_beside_the_specification(tmp_path: Path) -> None:
    (tmp_path / "beside_the_spec.py").write_text(
        "from torch import nn\n"
        "def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))\n"
    )
    model = load(tmp_path, name="python:beside_the_spec:make")
    assert model(torch.rand(2, 3, 2, 2)).shape == (2, 3)


def test_a_torchvision_architecture_with_local_weights(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    network = resnet18(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "resnet18.pt")
    model = load(tmp_path, name="torchvision:resnet18", weights="resnet18.pt")
    assert repr(model).startswith("torchvision:resnet18@")
    mean = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)
    with torch.no_grad():
        got, expected = model(IMAGES), network((IMAGES - mean) / std)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


CALLABLE = "callable:tests.tasks.small_networks:brightness"


def test_a_callable_answers_queries_but_has_no_gradients() -> None:
    model = load(name=CALLABLE, classes=2)
    assert re.fullmatch(rf"{CALLABLE}@[0-9a-f]{{12}}", repr(model))
    objective = Misclassify(model, model(IMAGES).argmax(1))
    seeds = torch.arange(len(IMAGES))
    with pytest.raises(TypeError, match=r"small_networks:brightness.* such as Square"):
        IFGSM(epsilon=0.1, step_size=0.05, steps=2)(IMAGES, objective, seeds=seeds)
    attacked = Square(epsilon=0.1, queries=5)(IMAGES, objective, seeds=seeds)
    assert (attacked - IMAGES).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("three_scores", r"expected scores \(4, 2\), got \(4, 3\)"),
        ("not_finite", "expected finite scores"),
        ("words", "expected an array of scores, got str"),
        ("one_number", r"expected scores \(4, 2\), got \(\)"),
    ],
)
def test_a_callable_that_answers_wrongly(name: str, expected: str) -> None:
    model = load(name=f"callable:tests.tasks.small_networks:{name}", classes=2)
    with pytest.raises(ModelError, match=f"{name}: {expected}"):
        model(IMAGES)


def test_a_callable_cannot_change_the_images() -> None:
    images = IMAGES.clone()
    load(name="callable:tests.tasks.small_networks:blackens")(images)
    assert torch.equal(images, IMAGES)


class Endpoint(BaseHTTPRequestHandler):
    """Answers each path in its own way."""

    def do_POST(self) -> None:
        images = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["images"]
        means = [float(torch.tensor(image).mean()) for image in images]
        answers: dict[str, Any] = {
            "/good": {"logits": [[mean, 1 - mean] for mean in means]},
            "/wrong-shape": {"logits": [[mean] for mean in means]},
            "/one-row": {"logits": [[0.0, 1.0]]},
            "/ragged": {"logits": [[0.0, 1.0], [0.0]]},
            "/other-key": {"scores": [[mean, 1 - mean] for mean in means]},
            "/list": means,
        }
        if self.path == "/silent":
            self.close_connection = True
            return
        status = {"/refused": 403, "/broken": 503}.get(self.path, 200)
        body = b"{" if self.path == "/bad-json" else json.dumps(answers.get(self.path, "")).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_endpoint_answers_queries(endpoint: str) -> None:
    model = load(name=f"{endpoint}/good", classes=2)
    means = IMAGES.mean((1, 2, 3))
    torch.testing.assert_close(model(IMAGES), torch.stack([means, 1 - means], 1))
    assert repr(load(name=f"{endpoint}/good", label="remote")).startswith("remote@")
    with pytest.raises(TypeError, match="/good"):
        IFGSM(steps=1)(IMAGES, Misclassify(model, torch.zeros(4).long()), seeds=torch.arange(4))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/bad-json", 'expected {"logits": .*}, got Expecting'),
        ("/other-key", 'expected {"logits": .*}, got no .logits.'),
        ("/list", 'expected {"logits": .*}, got'),
        ("/ragged", 'expected {"logits": .*}, got'),
        ("/wrong-shape", r"expected scores \(4, 2\), got \(4, 1\)"),
        ("/one-row", r"expected scores \(4, 2\), got \(1, 2\)"),
        ("/refused", "expected scores, got HTTP status 403"),
    ],
)
def test_an_endpoint_that_answers_wrongly(endpoint: str, path: str, expected: str) -> None:
    with pytest.raises(ModelError, match=f"{path}: {expected}"):
        load(name=endpoint + path, classes=2)(IMAGES)


@pytest.mark.parametrize("path", ["/silent", "/broken"])
def test_an_endpoint_that_gives_no_answer_may_do_so_later(endpoint: str, path: str) -> None:
    with pytest.raises(ConnectionError, match=f"{path}: no answer"):
        load(name=endpoint + path)(IMAGES)


def test_an_endpoint_that_is_not_there() -> None:
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1/: no answer: .*refused"):
        load(name="http://127.0.0.1:1/", timeout=2)(IMAGES)


def test_the_shipped_shapes_cnn_is_right_and_easily_fooled() -> None:
    source = Shapes(count=400, split="test")
    items = list(source.items())
    pixels = [torch.from_numpy(image).permute(2, 0, 1) for image in source.read(items)]  # type: ignore[arg-type]
    images = torch.stack(pixels).float() / 255
    labels = torch.tensor([item.label for item in items])
    model = load(name="shapes-cnn")
    attack = IFGSM(epsilon=8 / 255, step_size=2 / 255, steps=10)
    attacked = attack(images, Misclassify(model, labels), seeds=torch.arange(len(images)))
    stored = quantise_within(attacked, images, norm="linf", epsilon=8 / 255).float() / 255
    with torch.no_grad():
        clean, fooled = (
            float((model(x).argmax(1) == labels).float().mean()) for x in (images, stored)
        )
    assert clean >= 0.95
    assert fooled <= 0.1
