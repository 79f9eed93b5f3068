"""Adam against torch's own, and what it promises beyond it."""

from __future__ import annotations

import torch

from defender.adam import Adam


def gradients(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(2, 3, 4, generator=generator) for _ in range(count)]


def test_takes_the_steps_of_torch() -> None:
    ours, theirs = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4, requires_grad=True)
    adam = Adam(ours, 0.01, betas=(0.8, 0.95), eps=1e-6)
    reference = torch.optim.Adam([theirs], lr=0.01, betas=(0.8, 0.95), eps=1e-6)
    for gradient in gradients(7):
        ours -= adam.step(gradient)
        theirs.grad = gradient.clone()
        reference.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-7)


def test_the_first_step_has_the_same_size_everywhere() -> None:
    (gradient,) = gradients(1)
    change = Adam(gradient, 0.25).step(gradient)
    torch.testing.assert_close(change, 0.25 * gradient.sign())


def test_an_image_takes_its_own_steps() -> None:
    both, alone = Adam(torch.zeros(2, 3, 4), 0.1), Adam(torch.zeros(1, 3, 4), 0.1)
    for gradient in gradients(5):
        assert torch.equal(both.step(gradient)[1:], alone.step(gradient[1:]))


def test_what_is_not_finite_counts_as_no_gradient() -> None:
    (gradient,) = gradients(1)
    gradient[0, 0, 0], gradient[0, 0, 1], gradient[0, 0, 2] = torch.nan, torch.inf, -torch.inf
    before = gradient.clone()
    change = Adam(gradient, 0.1).step(gradient)
    assert change[0, 0, :3].tolist() == [0, 0, 0]
    assert change.isfinite().all()
    assert torch.equal(gradient[1], before[1])
    assert gradient[0, 0, 0].isnan()


def test_goes_on_from_a_state_that_was_kept() -> None:
    whole, first, second = (Adam(torch.zeros(2, 3, 4), 0.1) for _ in range(3))
    changes = [whole.step(gradient) for gradient in gradients(6)]
    for gradient in gradients(6)[:4]:
        first.step(gradient)
    second.first, second.second = first.first.clone(), first.second.clone()
    second.steps = first.steps
    for gradient, change in zip(gradients(6)[4:], changes[4:], strict=True):
        assert torch.equal(second.step(gradient), change)
