"""State the conclusions of an analysis as sentences, each from a number of the analysis."""

import math

import numpy as np

import unet.report.statistics as statistics
from unet.report.analysis import SweepAnalysis
from unet.report.arms import name_replicates
from unet.report.comparison import Contrast
from unet.report.metrics import metric_title, metric_value
from unet.report.statistics import ALPHA, POWER

NONE = "\N{EN DASH}"
"""Text of a cell without a number."""
MAX_SENTENCES = 5
"""Claimed differences that get a sentence; the table of comparisons has all."""
MAX_SEEDS = 1000


def format_number(value: float, digits: int = 4) -> str:
    """Return ``0.0123``, ``12.3`` or ``12,345``; a dash for nan."""
    if not math.isfinite(value):
        return NONE if math.isnan(value) else "infinite"
    size = abs(value)
    if size >= 10:
        return f"{value:,.{0 if size >= 1000 else 1}f}"
    return f"{value:.3g}" if 0 < size < 10.0**-digits else f"{value:.{digits}f}"


def format_p(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def format_interval(contrast: Contrast) -> str:
    if math.isnan(contrast.low):
        return "no interval from one seed"
    return f"95 % interval {format_number(contrast.low)} to {format_number(contrast.high)}"


def plural(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def summary_lines(analysis: SweepAnalysis) -> list[str]:
    """Return the lines for a terminal: conclusions, tuned values, warnings."""
    return [*conclusions(analysis), *analysis.tuning_notes, *(f"Warning: {text}" for text in analysis.warnings)]


def conclusions(analysis: SweepAnalysis) -> list[str]:
    """Return the conclusions, the most important one first."""
    return [*(name_replicates(text, analysis.unit) for text in sentences(analysis)), *describe_folds(analysis)]


def describe_folds(analysis: SweepAnalysis) -> list[str]:
    """Say what intervals speak of if runs differ in their fold."""
    if analysis.unit == "seed":
        return []
    folds = "fold" if analysis.unit == "fold" else "combination of a fold and a seed"
    evaluated = "its own validation images" if analysis.split == "val" else "the same test images"
    return [
        f"Each {folds} is a replicate, evaluated on {evaluated}: intervals and p speak of other divisions of these "
        f"images. Folds share training images, so their scores depend on each other and intervals are too narrow."
    ]


def sentences(analysis: SweepAnalysis) -> list[str]:
    """Return the conclusions in terms of seeds."""
    with_runs = sum(bool(runs) for runs in analysis.runs)
    if with_runs == 0:
        return [f"No run has finished with a {metric_title(analysis.metric)}: there is nothing to compare."]
    if with_runs == 1:
        return [describe_single_arm(analysis)]
    if not analysis.family:
        return [f"No two arms share a seed ({plural(with_runs, 'arm')} have runs): nothing is compared."]
    texts = describe_differences(analysis) + describe_main_effects(analysis) + describe_repeats(analysis)
    missing = sum(run.state == "missing" for run in analysis.missing_runs)
    if analysis.missing_runs:
        excluded = plural(len(analysis.missing_runs) - missing, "run")
        texts.append(f"{excluded} excluded, {missing} missing: see Failures and missing runs.")
    return texts


def describe_single_arm(analysis: SweepAnalysis) -> str:
    arm = next(index for index, runs in enumerate(analysis.runs) if runs)
    values = analysis.scores.values[arm][np.isfinite(analysis.scores.values[arm])]
    deviation = f", standard deviation {format_number(values.std(ddof=1))}" if len(values) > 1 else ""
    return (
        f"Only one arm has finished runs, {analysis.arms[arm].label}: mean {analysis.metric_name} "
        f"{format_number(values.mean())} over {plural(len(values), 'seed')}{deviation}. There is nothing to compare."
    )


def describe_differences(analysis: SweepAnalysis) -> list[str]:
    """Describe the claimed differences; without any, the minimum detectable effect."""
    metric = analysis.metric_name
    reference = "" if analysis.reference is None else f" with {analysis.arms[analysis.reference].label}"
    compared = f"{plural(len(analysis.family), 'comparison')}{reference}"
    if not analysis.can_decide:
        seeds = max(contrast.seeds for contrast in analysis.family)
        largest = max(analysis.family, key=lambda c: abs(c.difference))
        return [
            f"No difference can be shown: with {plural(seeds, 'seed')} the smallest possible p is "
            f"{statistics.smallest_possible_p(seeds):.3g}, above {ALPHA:.2g}, however large the difference "
            f"({compared}). Use at least {statistics.MIN_SEEDS} seeds per arm; nothing is ranked.",
            f"Largest observed difference: {largest.name}, {format_number(largest.difference)} {metric} "
            f"({format_interval(largest)}, not corrected).",
            *describe_seeds_needed(analysis),
        ]
    claimed = sorted((c for c in analysis.pairs if c[2].is_claimed), key=lambda c: -abs(c[2].difference))
    if not claimed:
        first = f"No evidence of a difference in {metric} between {len(analysis.main)} arms ({compared})."
        return [first, *describe_sensitivity(analysis)]
    sentences = [
        f"{plural(len(claimed), 'difference')} in {metric} can be claimed, out of {compared} between "
        f"{len(analysis.main)} arms."
    ]
    for a, b, contrast in claimed[:MAX_SENTENCES]:
        better = "better" if contrast.difference * analysis.sign > 0 else "worse"
        sentences.append(
            f"{analysis.arms[a].label} is {better} than {analysis.arms[b].label} by "
            f"{format_number(abs(contrast.difference))} ({format_interval(contrast)}; "
            f"{format_p(contrast.p_adjusted)} corrected, {plural(contrast.seeds, 'seed')})"
            f"{parameter_note(analysis, a, b)}."
        )
    if (more := len(claimed) - MAX_SENTENCES) > 0:
        sentences.append(f"The table of comparisons lists {more} more.")
    if count := len(analysis.family) - len(claimed):
        sentences.append(f"No evidence of a difference in the other {plural(count, 'comparison')}.")
        sentences += describe_sensitivity(analysis)
    return sentences


def parameter_note(analysis: SweepAnalysis, first: int, second: int) -> str:
    """Return a note if the first arm has another number of parameters, which may explain the difference."""

    def parameters(arm: int) -> float:
        return metric_value(next(iter(analysis.runs[arm].values())).metrics, analysis.split, "model/parameters")

    ratio = parameters(first) / parameters(second) if parameters(second) else math.nan
    if not math.isfinite(ratio) or abs(ratio - 1) < 0.05:
        return ""
    return f"; note that it has {ratio:.2g} times the parameters"


def pooled_deviation(analysis: SweepAnalysis) -> float:
    """Return the root of the mean variance of the paired differences over all compared pairs."""
    deviations = np.array([contrast.spread for contrast in analysis.family if contrast.seeds > 1])
    return float(np.sqrt((deviations**2).mean())) if len(deviations) else math.nan


def minimum_detectable(analysis: SweepAnalysis) -> float:
    """Return the smallest true difference that this sweep would detect with 80 % power."""
    unclaimed = [contrast for contrast in analysis.family if not contrast.is_claimed] or analysis.family
    return statistics.detectable_difference(np.stack([contrast.by_seed for contrast in unclaimed]))


def describe_sensitivity(analysis: SweepAnalysis) -> list[str]:
    """Describe the minimum detectable effect and the seeds needed for more."""
    effect = minimum_detectable(analysis)
    if not math.isfinite(effect):
        return describe_seeds_needed(analysis)
    return [
        f"Minimum detectable effect: {format_number(effect)} (the true difference that this sweep would detect with "
        f"{POWER * 100:.0f} % power; standard deviation of paired differences: "
        f"{format_number(pooled_deviation(analysis))}).",
        *describe_seeds_needed(analysis),
    ]


def describe_seeds_needed(analysis: SweepAnalysis) -> list[str]:
    """Describe how many seeds would detect the largest difference that is not claimed."""
    unclaimed = [contrast for contrast in analysis.family if contrast.seeds > 1 and not contrast.is_claimed]
    if not unclaimed or not pooled_deviation(analysis) > 0:
        return []
    largest = max(unclaimed, key=lambda c: abs(c.difference))
    ratio = minimum_detectable(analysis) / abs(largest.difference) if largest.difference else math.inf
    subject = f"the largest difference that is not claimed ({largest.name}, {format_number(largest.difference)})"
    if largest.seeds * ratio**2 > MAX_SEEDS:
        return [f"Detecting {subject} would take more than {MAX_SEEDS} seeds per arm."]
    needed = max(statistics.MIN_SEEDS, math.ceil(largest.seeds * ratio**2))  # a mean's error falls with the root
    if needed <= largest.seeds:
        return []
    more = plural(needed - largest.seeds, "more seed")
    return [f"Detecting {subject} would take about {more} per arm ({needed} in total), if it is the true difference."]


def describe_main_effects(analysis: SweepAnalysis) -> list[str]:
    """Describe the main effects of two factors, and their interaction."""
    effects = analysis.effects
    if effects is None or effects.deviations is None:
        return []
    sentences = []
    for key, other, contrasts in zip(effects.factors, reversed(effects.factors), effects.main, strict=True):
        claimed = [
            f"{contrast.name} {format_number(contrast.difference)} ({format_interval(contrast)}, "
            f"{format_p(contrast.p_adjusted)})"
            for contrast in contrasts
            if contrast.is_claimed
        ]
        if claimed:
            sentences.append(f"Averaged over {other}, {key} makes a difference: {'; '.join(claimed[:MAX_SENTENCES])}.")
        elif any(contrast.is_resolvable for contrast in contrasts):
            sentences.append(f"Averaged over {other}, there is no evidence that {key} makes a difference.")
    both = [*effects.main[0], *effects.main[1]]
    if both and not any(contrast.is_resolvable for contrast in both):
        sentences.append(f"Comparing averages over one factor takes {statistics.MIN_SEEDS} seeds.")
    if statistics.smallest_possible_p(effects.seeds) > ALPHA:
        return sentences
    evidence = "There is evidence" if effects.p <= ALPHA else "No evidence"
    interaction = f"the effect of {effects.factors[0]} depends on {effects.factors[1]}"
    return [*sentences, f"{evidence} that {interaction} ({format_p(effects.p)})."]


def describe_repeats(analysis: SweepAnalysis) -> list[str]:
    """Describe the seed noise: equal configurations with other seeds."""
    return [
        f"Seed noise: {analysis.arms[a].label} and {analysis.arms[b].label}, the same configuration, differ by "
        f"{format_number(abs(contrast.difference))} ({format_interval(contrast)})."
        for a, b, contrast in analysis.repeats
        if math.isfinite(contrast.difference)
    ]
