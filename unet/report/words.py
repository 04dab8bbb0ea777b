"""The answer in words. Every sentence follows from a number of the study; none is written where that is absent."""

import math
from collections.abc import Sequence

import numpy as np

import unet.report.statistics as statistics
from unet.report.comparison import Contrast
from unet.report.measures import measure, title
from unet.report.statistics import ALPHA, POWER
from unet.report.study import Study

NONE = "\N{EN DASH}"
"""What a cell says where there is no number."""
MOST_CLAIMS = 5
"""Spelled out; the rest are counted, and stand in the table."""
MOST_SEEDS = 1000
"""Of which advice is given; nobody trains more."""


def short(value: float, digits: int = 4) -> str:
    """``0.0123``, ``12.3``, ``12,345``; what is not known as a dash."""
    if not math.isfinite(value):
        return NONE if math.isnan(value) else "infinite"
    size = abs(value)
    if size >= 10:
        return f"{value:,.{0 if size >= 1000 else 1}f}"
    return f"{value:.3g}" if 0 < size < 10.0**-digits else f"{value:.{digits}f}"


def p_text(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def interval_text(found: Contrast) -> str:
    if math.isnan(found.low):
        return "no interval from one seed"
    return f"95 % interval {short(found.low)} to {short(found.high)}"


def count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def told(study: Study) -> list[str]:
    """What a terminal says of a study: the answer, what was tuned, what makes runs hard to compare."""
    return [*answer(study), *study.choices, *(f"Warning: {warning}" for warning in study.warnings)]


def answer(study: Study) -> list[str]:
    """What the sweep shows, the most important sentence first."""
    with_runs = sum(bool(runs) for runs in study.runs)
    if with_runs == 0:
        return [f"No run has finished with a {title(study.metric)}: there is nothing to compare."]
    if with_runs == 1:
        return [alone(study)]
    if not study.compared:
        return [f"No two arms share a seed ({count(with_runs, 'arm')} have runs): nothing is compared."]
    sentences = differences(study) + main_effects(study) + repeats(study)
    lost = [gap for gap in study.gaps if gap.state != "missing"]
    if study.gaps:
        missing = len(study.gaps) - len(lost)
        parts = [count(len(lost), "run") + " left out"] * bool(lost) + [f"{missing} missing"] * bool(missing)
        sentences.append(f"Not in these numbers: {listed(parts)}; the reasons are below.")
    return sentences


def alone(study: Study) -> str:
    arm = next(index for index, runs in enumerate(study.runs) if runs)
    values = study.scores.values[arm][np.isfinite(study.scores.values[arm])]
    spread = f", standard deviation {short(values.std(ddof=1))}" if len(values) > 1 else ""
    return (
        f"One arm has finished runs, {study.arms[arm].label}: mean {study.split} {title(study.metric)} "
        f"{short(values.mean())} over {count(len(values), 'seed')}{spread}. There is nothing to compare it with."
    )


def differences(study: Study) -> list[str]:
    """Which arms differ; else that none was seen to, and what could have been."""
    metric = f"{study.split} {title(study.metric)}"
    claims = sorted((c for c in study.pairs if c[2].claimed), key=lambda c: -abs(c[2].difference))
    against = f" with {study.arms[study.reference].label}" if study.reference is not None else ""
    compared = f"{count(len(study.compared), 'comparison')}{against}"
    if not study.decides:
        return undecidable(study, metric, compared)
    if not claims:
        first = f"No evidence of a difference in {metric} between {len(study.main)} arms ({compared})."
        return [first, *sensitivity(study)]
    headline = (
        f"{count(len(claims), 'difference')} in {metric} can be claimed, of {compared} between {len(study.main)} arms."
    )
    told = [
        f"{study.arms[a].label} is {direction(study, found)} than {study.arms[b].label} by "
        f"{short(abs(found.difference))} ({interval_text(found)}; {p_text(found.p_adjusted)} corrected, "
        f"{count(found.seeds, 'seed')}){size_note(study, a, b)}."
        for a, b, found in claims[:MOST_CLAIMS]
    ]
    rest = len(claims) - len(told)
    told += [f"{rest} more {'are' if rest > 1 else 'is'} in the table of comparisons."] * (rest > 0)
    others = len(study.compared) - len(claims)
    told += [f"No evidence of a difference in the other {count(others, 'comparison')}."] * (others > 0)
    return [headline, *told, *(sensitivity(study) if others else [])]


def direction(study: Study, found: Contrast) -> str:
    """In the metric's own sense, so that a lower loss reads as better."""
    return "better" if found.difference * study.sign > 0 else "worse"


def size_note(study: Study, first: int, second: int) -> str:
    """A warning where the better arm also has other parameters: the difference may be that of size."""

    def parameters(arm: int) -> float:
        return measure(next(iter(study.runs[arm].values())).metrics, study.split, "model/parameters")

    ratio = parameters(first) / parameters(second) if parameters(second) else math.nan
    if not math.isfinite(ratio) or abs(ratio - 1) < 0.05:
        return ""
    return f"; mind that it has {ratio:.2g} times the parameters"


def undecidable(study: Study, metric: str, compared: str) -> list[str]:
    """Too few seeds for any difference: nothing is ranked."""
    seeds = max(found.seeds for found in study.compared)
    found = max(study.compared, key=lambda c: abs(c.difference))
    return [
        f"No difference can be shown: {count(seeds, 'seed')} cannot reach p = {ALPHA:.2g} however large the "
        f"difference: the least p of {count(seeds, 'pair')} of runs is {statistics.smallest_p(seeds):.3g} "
        f"({compared}). At least {statistics.LEAST_SEEDS} seeds an arm are needed; nothing is ranked.",
        f"The largest difference seen, {found.name}, is {short(found.difference)} {metric} ({interval_text(found)}, "
        f"not corrected).",
        *more_seeds(study),
    ]


def pooled_spread(study: Study) -> float:
    """Root of the mean variance of the paired differences over all compared pairs."""
    spreads = np.array([found.spread for found in study.compared if found.seeds > 1])
    return float(np.sqrt((spreads**2).mean())) if len(spreads) else math.nan


def minimum_detectable(study: Study) -> float:
    """The smallest true difference that this sweep would show four times in five, beside what it does not claim."""
    unclaimed = [found for found in study.compared if not found.claimed] or study.compared
    return statistics.detectable(np.stack([found.by_seed for found in unclaimed]))


def sensitivity(study: Study) -> list[str]:
    least = minimum_detectable(study)
    if not math.isfinite(least):
        return more_seeds(study)
    return [
        f"The smallest true difference that this sweep would have shown with {POWER * 100:.0f} % probability is "
        f"{short(least)} (paired differences spread by {short(pooled_spread(study))}).",
        *more_seeds(study),
    ]


def more_seeds(study: Study) -> list[str]:
    """How many seeds would show the largest difference seen and not claimed."""
    unclaimed = [found for found in study.compared if found.seeds > 1 and not found.claimed]
    if not unclaimed or not pooled_spread(study) > 0:
        return []
    found = max(unclaimed, key=lambda c: abs(c.difference))
    ratio = minimum_detectable(study) / abs(found.difference) if found.difference else math.inf
    what = f"the largest difference that is not claimed ({found.name}, {short(found.difference)}), were it the true one"
    if found.seeds * ratio**2 > MOST_SEEDS:
        return [f"More than {MOST_SEEDS} seeds an arm would be needed to show {what}."]
    needed = max(statistics.LEAST_SEEDS, math.ceil(found.seeds * ratio**2))  # a mean's error falls with the root
    more = max(0, needed - found.seeds)
    if more == 0:
        return []
    return [f"About {count(more, 'more seed')} an arm ({needed} in all) would be needed to show {what}."]


def main_effects(study: Study) -> list[str]:
    """Of two crossed factors: what each does averaged over the other, and whether they interact."""
    two = study.effects
    if two is None or two.deviations is None:
        return []
    sentences = []
    for key, other, contrasts in zip(two.factors, reversed(two.factors), two.main, strict=True):
        claims = [found for found in contrasts if found.claimed]
        if claims:
            told = [f"{c.name} {short(c.difference)} ({interval_text(c)}, {p_text(c.p_adjusted)})" for c in claims]
            sentences.append(f"Averaged over {other}, {key} makes a difference: {'; '.join(told[:MOST_CLAIMS])}.")
        elif any(found.resolvable for found in contrasts):
            sentences.append(f"Averaged over {other}, there is no evidence that {key} makes a difference.")
    both = [*two.main[0], *two.main[1]]
    if both and not any(found.resolvable for found in both):
        sentences.append(f"To compare averages over one factor, {statistics.LEAST_SEEDS} seeds are needed.")
    if statistics.smallest_p(two.seeds) > ALPHA:
        return sentences
    evidence = "There is evidence" if two.p <= ALPHA else "No evidence"
    return [
        *sentences,
        f"{evidence} that the effect of {two.factors[0]} depends on {two.factors[1]} ({p_text(two.p)}).",
    ]


def repeats(study: Study) -> list[str]:
    """The noise floor: equal configurations, other seeds."""
    return [
        f"The same configuration twice, {study.arms[a].label} and {study.arms[b].label}, differs by "
        f"{short(abs(found.difference))} ({interval_text(found)}): what seeds alone can do."
        for a, b, found in study.repeats
        if math.isfinite(found.difference)
    ]
