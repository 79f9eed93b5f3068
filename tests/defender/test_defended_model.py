"""A model behind a purifier as one module: answers, seeds, votes, gradients, devices' moves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from defender import noise
from defender.attacks import PGD
from defender.models import DefendedModel
from defender.models.defended import content_seeds
from defender.noise import derive_seeds
from defender.objectives import Misclassify
from defender.purifiers import (
    IWMF,
    JPEG,
    Gaussian,
    Learned,
    Median,
    SeparateCorrectCombine,
    Sequence,
)
from tests import cases

ROOT = Path(__file__).resolve().parents[2]
MODEL = cases.MODEL


@dataclass(frozen=True)
class Jitter:
    """Adds normal noise that depends on the seeds; its gradient is the identity times ``slope``."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none"
    keeps_size: ClassVar[bool] = True
    knowledge: ClassVar[str] = "blind"

    sigma: float = 0.2
    slope: float = 1.0

    def __call__(self, images: Tensor, *, seeds: Tensor, reference: Tensor | None = None) -> Tensor:
        drawn = noise.normal(seeds, tuple(images.shape[1:])).to(images)
        return self.slope * images + self.sigma * drawn

    def parts(self, images: Tensor, **given: Any) -> dict[str, Tensor]:
        return {"purified": self(images, **given)}


def drawn(images: Tensor, purifier: Any, draw: int = 0, seed: int = 0) -> Tensor:
    """What the purifier makes of images in one draw, by the documented rule."""
    return purifier(images, seeds=derive_seeds(content_seeds(images, seed), f"draw {draw}"))


def test_it_is_the_model_of_the_purified_images() -> None:
    images = cases.images(4)
    defended = DefendedModel(MODEL, Median(3))
    expected = MODEL(Median(3)(images, seeds=cases.seeds(4)))
    assert torch.equal(defended(images), expected)
    assert not defended.training
    assert repr(defended) == (
        f"DefendedModel(model={MODEL!r}, purifier={Median(3)!r}, seed=0, draws=1, vote='mean', "
        "backward='exact')"
    )


def test_an_answer_depends_on_the_image_alone() -> None:
    images = cases.images(6)
    defended = DefendedModel(MODEL, Jitter(), draws=2)
    whole = defended(images)
    assert torch.equal(defended(images), whole)
    alone = torch.cat([defended(images[i : i + 1]) for i in range(6)])
    assert torch.allclose(alone, whole, atol=1e-6)
    assert torch.allclose(defended(images.flip(0)).flip(0), whole, atol=1e-6)
    assert (DefendedModel(MODEL, Jitter(), seed=1, draws=2)(images) - whole).abs().max() > 0.01


def test_seeds_are_of_the_values_and_of_nothing_else() -> None:
    images = cases.images(4)
    seeds = content_seeds(images)
    assert len(set(seeds.tolist())) == 4
    assert torch.equal(content_seeds(images.double()), seeds)
    assert torch.equal(content_seeds(images.contiguous(memory_format=torch.channels_last)), seeds)
    assert torch.equal(content_seeds(images[[2, 0]]), seeds[[2, 0]])
    changed = images.clone()
    changed[0, 0, 0, 0] += 2**-12
    assert (content_seeds(changed) == seeds).tolist() == [False, True, True, True]
    zeros = torch.zeros(1, 1, 2, 2)
    assert torch.equal(content_seeds(zeros), content_seeds(-zeros))
    assert content_seeds(torch.zeros(1, 1, 2, 8)) != content_seeds(torch.zeros(1, 1, 4, 4))
    assert content_seeds(zeros, 1) != content_seeds(zeros, 2)


def test_the_mean_is_over_the_outputs_of_independent_draws() -> None:
    images = cases.images(3)
    defended = DefendedModel(MODEL, Jitter(), seed=5, draws=3)
    single = [MODEL(drawn(images, Jitter(), draw, 5)) for draw in range(3)]
    assert torch.allclose(defended(images), torch.stack(single).mean(0), atol=1e-6)
    assert (single[0] - single[1]).abs().max() > 0.01


def test_outputs_of_other_forms_are_averaged_too() -> None:
    class Maps(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images[:, :1]

    images = cases.images(2)
    made = DefendedModel(Maps().eval(), Jitter(), draws=2)(images)
    both = [drawn(images, Jitter(), draw)[:, :1] for draw in range(2)]
    assert torch.allclose(made, (both[0] + both[1]) / 2)
    with pytest.raises(ValueError, match=r"majority expected outputs \(n, classes\)"):
        DefendedModel(Maps().eval(), Jitter(), vote="majority")(images)


def test_the_majority_is_the_share_of_draws_that_each_class_wins() -> None:
    images = cases.images(6)
    purifier = Jitter(sigma=0.5)
    shares = DefendedModel(MODEL, purifier, draws=5, vote="majority")(images)
    votes = torch.stack([MODEL(drawn(images, purifier, k)).argmax(1) for k in range(5)])
    for i in range(6):
        expected = torch.bincount(votes[:, i], minlength=cases.CLASSES) / 5
        assert torch.equal(shares[i], expected)
    assert ((shares > 0) & (shares < 1)).any(), "the draws of some image disagree"


def test_the_gradient_of_a_majority_is_that_of_the_mean_softmax() -> None:
    images = cases.images(2).requires_grad_(True)
    purifier = Jitter()
    seeds = content_seeds(images)
    chances = [
        MODEL(purifier(images, seeds=derive_seeds(seeds, f"draw {k}"))).softmax(1) for k in (0, 1)
    ]
    (expected,) = torch.autograd.grad(((chances[0] + chances[1]) / 2)[:, 1].sum(), images)
    shares = DefendedModel(MODEL, purifier, draws=2, vote="majority")(images)
    (found,) = torch.autograd.grad(shares[:, 1].sum(), images)
    assert expected.abs().max() > 1e-4
    assert torch.allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize(("backward", "slope"), [("exact", 0.5), ("identity", 1.0)])
def test_gradients_are_the_purifiers_own_or_pass_unchanged(backward: Any, slope: float) -> None:
    images = cases.images(3).requires_grad_(True)
    purifier = Jitter(slope=0.5)
    purified = drawn(images.detach(), purifier).requires_grad_(True)
    (behind,) = torch.autograd.grad(MODEL(purified).sum(), purified)
    outputs = DefendedModel(MODEL, purifier, backward=backward)(images)
    (found,) = torch.autograd.grad(outputs.sum(), images)
    assert torch.allclose(found, slope * behind, atol=1e-6)
    assert torch.allclose(outputs, MODEL(purified), atol=1e-6)


def test_a_purifier_without_a_gradient_needs_the_identity() -> None:
    images = cases.images(2).requires_grad_(True)
    with pytest.raises(TypeError, match="expected a purifier with a gradient, got JPEG"):
        DefendedModel(MODEL, JPEG(50))(images)
    assert DefendedModel(MODEL, JPEG(50))(images.detach()).shape == (2, cases.CLASSES)
    DefendedModel(MODEL, JPEG(50), backward="identity")(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_attacks_take_it_for_a_model() -> None:
    images, labels = cases.images(4), cases.labels(4)
    defended = DefendedModel(MODEL, Sequence((IWMF(0.2), Gaussian(0.5))))
    objective = Misclassify(defended, labels)
    attacked = PGD(epsilon=0.1, step_size=0.03, steps=5)(images, objective, seeds=cases.seeds(4))
    assert (objective(attacked) > objective(images)).all()


def test_parameters_are_those_of_the_model_and_all_networks_move() -> None:
    network = cases.image_network()
    model = cases.classifier()
    defended = DefendedModel(model, Sequence((Median(3), Learned(network))))
    assert list(defended.state_dict()) == [f"model.{name}" for name in model.state_dict()]
    held = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in defended.parameters()} == held
    defended.double()
    assert all(p.dtype == torch.float64 for p in network.parameters())
    assert defended(cases.images(2).double()).dtype == torch.float64
    defended.train()
    assert model.training
    assert not network.training


@pytest.mark.parametrize(
    ("purifier", "options", "error", "words"),
    [
        (Median, {}, TypeError, r"purifier: expected a purifier such as Median\(3\)"),
        (MODEL, {}, TypeError, "purifier: expected a purifier"),
        (Median(3), {"draws": 0}, ValueError, "draws: expected >= 1, got 0"),
        (Median(3), {"vote": "median"}, ValueError, r"vote: expected mean \| majority"),
        (Median(3), {"backward": "bpda"}, ValueError, r"backward: expected exact \| identity"),
        (
            SeparateCorrectCombine(model=MODEL, variant="reference"),
            {},
            ValueError,
            "without the clean original",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    purifier: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        DefendedModel(MODEL, purifier, **options)


def test_images_must_be_a_batch() -> None:
    with pytest.raises(ValueError, match=r"expected images \(n, c, h, w\), got \(3, 12, 12\)"):
        DefendedModel(MODEL, Median(3))(cases.images(1)[0])


def test_the_example_of_the_page_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/models.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "DefendedModel" in block]
    images = cases.images(2).requires_grad_(True)
    given = {"images": images, "model": MODEL, "labels": cases.labels(2)}
    exec(code, given)
    assert given["logits"].shape == (2, cases.CLASSES)
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
