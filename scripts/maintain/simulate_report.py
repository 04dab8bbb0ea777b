"""Measure on simulated sweeps how often a report says something false, and how often what it announces is shown.

python scripts/maintain/simulate_report.py [sweeps=2000] [seeds=12]

Every sweep has one factor with six levels, five of them compared with the first, or a table of 4 x 4 arms with six
questions. "False": any question of a sweep is called better or worse where levels are equal, or practically equal where
they differ by the margin. "Covered": intervals that contain their true difference.
"""

import math
import sys
from collections.abc import Callable

import numpy as np

from unet.report.arms import Arm
from unet.report.comparison import BETTER, EQUAL, WORSE, Scores
from unet.report.power import detectable_difference
from unet.report.questions import Question, answer_questions
from unet.report.statistics import ALPHA

Array = np.ndarray
Noise = Callable[[np.random.Generator, int, int], Array]

MARGIN = 2.0
"""In standard deviations of a run."""
TINY = 1e-9
"""A margin that nothing is within: "practically equal" then hides no false "better"."""


def half_skewed(rng: np.random.Generator, arms: int, seeds: int) -> Array:
    """Return normal scores for every other arm and exponential ones for the rest."""
    noise = rng.standard_normal((arms, seeds))
    noise[1::2] = rng.standard_exponential(noise[1::2].shape) - 1
    return noise


def some_untrained(rng: np.random.Generator, arms: int, seeds: int) -> Array:
    """Return normal scores; runs of every other arm are excluded with probability 0.17, as if they found no lakes."""
    noise = rng.standard_normal((arms, seeds))
    noise[1::2][rng.random(noise[1::2].shape) < 0.17] = math.nan
    return noise


NOISES: dict[str, Noise] = {
    "normal": lambda rng, arms, seeds: rng.standard_normal((arms, seeds)),
    "heavy-tailed (t, 3)": lambda rng, arms, seeds: rng.standard_t(3, (arms, seeds)) / math.sqrt(3),
    "skewed (exponential)": lambda rng, arms, seeds: rng.standard_exponential((arms, seeds)) - 1,
    "normal and exponential": half_skewed,
    "spreads 0.3 to 1.7": lambda rng, arms, seeds: (
        rng.standard_normal((arms, seeds)) * np.linspace(0.3, 1.7, arms)[:, None]
    ),
    "two groups (17 % excluded)": some_untrained,
    "exponential and narrow normal": lambda rng, arms, seeds: (
        half_skewed(rng, arms, seeds) * np.where(np.arange(arms) % 2, 1, 0.2)[:, None]
    ),
}


def arms_of(design: str) -> tuple[list[Arm], list[str], dict[str, str]]:
    """Return arms, factors and named questions of a design: ``1 x 6`` or ``4 x 4``."""
    rows, columns = (int(number) for number in design.split(" x "))
    arms = [Arm(f"{i}, {j}", {"row": str(i), "column": str(j)}, []) for i in range(rows) for j in range(columns)]
    factors = [key for key, levels in (("row", rows), ("column", columns)) if levels > 1]
    return arms, factors, dict.fromkeys(factors, "0")


def answer(design: str, values: Array) -> list[Question]:
    """Return the questions of a sweep with scores (A, S)."""
    arms, factors, named = arms_of(design)
    scores = Scores([arm.label for arm in arms], list(range(values.shape[1])), values)
    return answer_questions(scores, arms, factors, named, 1, ALPHA)


def simulate(design: str, noise: Noise, truth: Array, margin: float, seeds: int, sweeps: int) -> tuple[float, float]:
    """Return the shares of sweeps with anything false and of intervals that contain the true difference."""
    rng, false, covered = np.random.default_rng(0), 0, []
    for _ in range(sweeps):
        questions = answer(design, truth[:, None] + noise(rng, len(truth), seeds))
        wrong = False
        for question in questions:
            difference, verdict = float(question.weights @ truth), question.contrast.verdict(margin)
            wrong |= verdict in (BETTER, WORSE) and abs(difference) < 1e-9
            wrong |= verdict == EQUAL and abs(difference) >= margin - 1e-9
            covered.append(question.contrast.low <= difference <= question.contrast.high)
        false += wrong
    return false / sweeps, float(np.mean(covered))


def power(design: str, seeds: int, sweeps: int) -> tuple[float, float]:
    """Return the difference that a typical sweep announces with 80 % power, and the share of sweeps that show it."""
    rng, arms = np.random.default_rng(1), len(arms_of(design)[0])
    announced = float(
        np.mean(
            [
                detectable_difference(np.stack([q.contrast.by_seed for q in answer(design, values)]))
                for values in rng.standard_normal((30, arms, seeds))
            ]
        )
    )
    first = answer(design, np.zeros((arms, seeds)))[0]
    shift = np.where(first.weights > 0, announced, 0.0)[:, None]
    shown = [
        answer(design, values + shift)[0].contrast.verdict(TINY) == BETTER
        for values in rng.standard_normal((sweeps, arms, seeds))
    ]
    return announced, float(np.mean(shown))


def main() -> None:
    options = {"sweeps": 2000, "seeds": 12} | {
        key: int(value) for key, _, value in (argument.partition("=") for argument in sys.argv[1:])
    }
    sweeps, seeds = options["sweeps"], options["seeds"]
    print(f"{sweeps} sweeps of {seeds} seeds, margin {MARGIN:g} standard deviations of a run\n")
    print("| arms | noise | equal: false | covered | some differ by the margin: false | covered |")
    print("|---|---|---|---|---|---|")
    for design in ("1 x 6", "4 x 4"):
        number = len(arms_of(design)[0])
        mixed = MARGIN * (np.array([0, 1, 0, -1, 1, 0]) if number == 6 else np.repeat([0, 1, 0, 0], 4))
        for name, noise in NOISES.items():
            null = simulate(design, noise, np.zeros(number), TINY, seeds, sweeps)
            some = simulate(design, noise, mixed, MARGIN, seeds, sweeps)
            cells = [f"{share:.3f}" for share in (*null, *some)]
            print(f"| {design} | {name} | {' | '.join(cells)} |", flush=True)
    print("\n| arms | announced with 80 % | shown |\n|---|---|---|")
    for design in ("1 x 6", "4 x 4"):
        announced, shown = power(design, seeds, sweeps)
        print(f"| {design} | {announced:.2f} | {shown:.3f} |", flush=True)


if __name__ == "__main__":
    main()
