"""Calibration of strengths, on measures whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import pytest

from defender.attacks import IFGSM, Corruption
from defender.norms import from_uint8, quantise_within
from defender.strength import OutOfReach, calibrate, strength_name, with_strength
from tests import cases


class Stepped(IFGSM):
    strength: ClassVar[str] = "step_size"


def step_of_255(strength: float) -> float:
    """The largest change of a linf attack whose results are stored with 8 bits."""
    return math.floor(255 * strength + 1e-6) / 255


CURVES: list[tuple[Callable[[float], float], float, float]] = [
    (lambda x: x, 0.02, 0.02),
    (lambda x: 3 * x, 0.02, 0.02 / 3),
    (lambda x: x**3, 1e-4, 1e-4 ** (1 / 3)),
    (lambda x: math.sqrt(x), 0.4, 0.16),
    (lambda x: max(0.0, x - 0.3), 0.1, 0.4),
    (lambda x: 1 - math.exp(-5 * x), 0.7, -math.log(0.3) / 5),
]


@pytest.mark.parametrize(("measure", "wanted", "answer"), CURVES, ids=range(len(CURVES)))
def test_finds_the_strength(
    measure: Callable[[float], float], wanted: float, answer: float
) -> None:
    found = calibrate(measure, wanted, 1e-4, 1.0, tolerance=0.001)
    assert found.reached == measure(found.value) == pytest.approx(wanted, rel=0.001)
    assert found.value == pytest.approx(answer, rel=0.002)
    assert found.tries[-1] == (found.value, found.reached)
    assert all(reached == measure(strength) for strength, reached in found.tries)


def test_a_proportional_measure_takes_two_tries() -> None:
    found = calibrate(lambda strength: 8 * strength, 4 / 255, 1e-5, 1.0)
    assert len(found.tries) == 2
    assert found.value == pytest.approx(0.5 / 255)


@pytest.mark.parametrize("levels", [1, 2, 4, 8, 16])
def test_finds_whole_levels_of_a_stepped_measure(levels: int) -> None:
    found = calibrate(step_of_255, levels / 255, 1e-4, 1.0)
    assert found.reached == levels / 255
    assert levels <= 255 * found.value + 1e-6 < levels + 1
    assert len(found.tries) <= 12


def test_the_ends_of_the_interval_can_be_the_answer() -> None:
    assert calibrate(lambda x: x, 0.5, 0.1, 0.5, tolerance=1e-9).value == 0.5
    assert calibrate(lambda x: x, 0.1, 0.1, 0.5, tolerance=1e-9).value == 0.1


@pytest.mark.parametrize(
    ("measure", "wanted", "strength", "reached"),
    [
        (lambda x: min(x, 0.05), 0.2, None, 0.05),
        (lambda x: 0.3 * x, 0.9, 1.0, 0.3),
        (lambda x: 2 + x, 1.0, 0.01, 2.01),
    ],
    ids=["saturates", "too much", "too little"],
)
def test_what_is_out_of_reach_names_the_closest(
    measure: Callable[[float], float], wanted: float, strength: float | None, reached: float
) -> None:
    with pytest.raises(
        OutOfReach, match=rf"got {wanted:g}; the closest of \d+ is {reached:g}"
    ) as e:
        calibrate(measure, wanted, 0.01, 1.0)
    assert e.value.closest.reached == pytest.approx(reached)
    assert strength is None or e.value.closest.value == strength
    assert len(e.value.closest.tries) <= 20


def test_a_value_between_two_steps_is_out_of_reach() -> None:
    with pytest.raises(OutOfReach) as e:
        calibrate(step_of_255, 2.5 / 255, 1e-3, 1.0, steps=60)
    assert 255 * e.value.closest.reached in (2, 3)
    below = max(x for x, reached in e.value.closest.tries if reached < 2.5 / 255)
    above = min(x for x, reached in e.value.closest.tries if reached > 2.5 / 255)
    assert below < 3 / 255 <= above + 1e-6
    assert above <= below * (1 + 1e-4)


def test_noise_does_no_more_harm_than_its_size() -> None:
    def noisy(strength: float) -> float:
        return strength * (1 + 0.01 * math.sin(1e5 * strength))

    found = calibrate(noisy, 0.03, 1e-4, 1.0)
    assert found.value == pytest.approx(0.03, rel=0.04)


def test_strengths_stay_inside_the_interval_and_the_number_is_kept() -> None:
    tried = []

    def measure(strength: float) -> float:
        tried.append(strength)
        return 1e-9 * strength

    with pytest.raises(OutOfReach):
        calibrate(measure, 1.0, 0.2, 0.9, steps=7)
    assert len(tried) <= 7
    assert all(0.2 <= strength <= 0.9 for strength in tried)
    assert tried[-1] == 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": 0.0}, "low, high: expected 0 < low < high"),
        ({"low": 0.5, "high": 0.5}, "low, high"),
        ({"wanted": 0.0}, "wanted: expected > 0"),
        ({"steps": 0}, "tolerance, steps"),
        ({"tolerance": -0.1}, "tolerance, steps"),
    ],
    ids=str,
)
def test_refuses_arguments_out_of_range(changes: dict[str, float], message: str) -> None:
    arguments: dict[str, float] = {"wanted": 0.1, "low": 0.01, "high": 1.0, **changes}
    with pytest.raises(ValueError, match=message):
        calibrate(lambda x: x, **arguments)  # type: ignore[arg-type]


def test_a_measure_that_is_no_number_is_named() -> None:
    with pytest.raises(ValueError, match=r"measure: expected a finite number, got nan at 0\.1$"):
        calibrate(lambda strength: math.nan, 0.1, 0.01, 1.0)


def test_an_attack_says_which_parameter_its_strength_is() -> None:
    attack = Stepped(epsilon=0.1, step_size=0.01, steps=3)
    assert with_strength(attack, 0.02) == Stepped(epsilon=0.1, step_size=0.02, steps=3)
    assert strength_name(attack) == "step_size"
    with pytest.raises(ValueError, match="step_size"):
        with_strength(attack, -1.0)
    with pytest.raises(TypeError, match="expected an attack with a strength, got Corruption"):
        with_strength(Corruption(), 0.1)


def test_calibrates_an_attack_on_stored_images() -> None:
    images = cases.images()
    attack = Stepped(epsilon=0.2, step_size=0.01, steps=3)

    def mean_linf(strength: float) -> float:
        attacked = with_strength(attack, strength)(
            images, cases.objective(attack), seeds=cases.seeds()
        )
        stored = quantise_within(attacked, images, norm="linf", epsilon=attack.epsilon)
        return float((from_uint8(stored) - images).abs().amax(dim=(1, 2, 3)).mean())

    found = calibrate(mean_linf, 8 / 255, 1e-4, 0.2)
    assert mean_linf(found.value) == pytest.approx(8 / 255, rel=0.02)
    assert found.value < 8 / 255
