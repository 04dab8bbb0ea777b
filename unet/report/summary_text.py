"""State the conclusions of an analysis as sentences, each from a number of the analysis."""

import math
from collections import Counter

import numpy as np

from unet.report.analysis import SweepAnalysis
from unet.report.arms import name_replicates, shorten_keys
from unet.report.comparison import BETTER, EQUAL, NO_VERDICT, TOO_FEW, UNDECIDED, WORSE, Contrast
from unet.report.image_influences import MIN_UNITS
from unet.report.metrics import as_float, mean_and_sd, metric_title
from unet.report.power import POWER, detectable_difference, seeds_needed
from unet.report.questions import Question
from unet.report.statistics import ALPHA, MIN_SEEDS, RECOMMENDED_SEEDS, proportion_interval
from unet.report.untrained import BASELINE

NONE = "\N{EN DASH}"
"""Text of a cell without a number."""
MAX_SENTENCES = 8
"""Questions of a kind that get a sentence; the table has all."""
MAX_NAMED = 4
"""Arms that are named with their untrained runs; the table of arms has all."""
NOTABLE = 0.03
"""Relative difference in operations or parameters that is worth a note."""


def format_number(value: float, digits: int = 4) -> str:
    """Return ``0.0123``, ``12.3`` or ``12,345``; a dash for nan."""
    if not math.isfinite(value):
        return NONE if math.isnan(value) else "infinite"
    size = abs(value)
    if size >= 10:
        return f"{value:,.{0 if size >= 1000 else 1}f}"
    return f"{value:.3g}" if 0 < size < 10.0**-digits else f"{value:.{digits}f}"


def format_interval(contrast: Contrast) -> str:
    if math.isnan(contrast.low):
        return "no interval from one seed"
    return f"{format_number(contrast.low)} to {format_number(contrast.high)}"


def plural(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def summary_lines(analysis: SweepAnalysis) -> list[str]:
    """Return the lines for a terminal: conclusions, tuned values, warnings."""
    return [*conclusions(analysis), *analysis.tuning_notes, *(f"Warning: {text}" for text in analysis.warnings)]


def conclusions(analysis: SweepAnalysis) -> list[str]:
    """Return the conclusions: what was run, runs that did not train, then the answers."""
    return [*(name_replicates(text, analysis.unit) for text in sentences(analysis)), *describe_folds(analysis)]


def sentences(analysis: SweepAnalysis) -> list[str]:
    """Return the conclusions in terms of seeds."""
    with_runs = sum(bool(runs) for runs in analysis.finished)
    if with_runs == 0:
        return [f"No run has finished with a {metric_title(analysis.metric)}: there is nothing to compare."]
    texts = [describe_runs(analysis), *describe_untrained(analysis)]
    if with_runs == 1:
        texts.append("Only one arm has finished runs: there is nothing to compare.")
    elif not any(contrast.seeds for contrast in analysis.contrasts):
        trained = " at which both trained" if analysis.untrained else ""
        texts.append(f"Nothing is compared: no two of {with_runs} arms share a seed{trained}.")
    else:
        texts += [*describe_questions(analysis), *describe_interaction(analysis), *describe_images(analysis)]
    texts += describe_repeats(analysis)
    missing = sum(run.state in ("missing", "pending") for run in analysis.missing_runs)
    if analysis.missing_runs:
        excluded = plural(len(analysis.missing_runs) - missing, "run")
        texts.append(f"{excluded} excluded, {missing} not run: see Failures and missing runs.")
    return texts


def describe_runs(analysis: SweepAnalysis) -> str:
    """Say which data were trained on for how long, the scores, and the baseline."""
    runs = [run for runs in analysis.finished for run in runs.values()]
    data = " and ".join(sorted({str(run.metrics["data"]) for run in runs if "data" in run.metrics})) or "data"
    steps = sorted({int(run.metrics["steps"]) for run in runs if "steps" in run.metrics})
    length = f", {' to '.join(f'{n:,}' for n in dict.fromkeys([steps[0], steps[-1]]))} steps" if steps else ""
    most = max(len(runs) for runs in analysis.finished)
    means = analysis.scores.means()[analysis.main]
    means = means[np.isfinite(means)]
    if not len(means):
        scores = "no run trained"
    elif len(means) == 1:
        arm = next(index for index in analysis.main if analysis.runs[index])
        deviation = mean_and_sd(analysis.scores.values[arm])[1]
        spread = "" if math.isnan(deviation) else f", standard deviation {format_number(deviation)}"
        scores = f"mean {analysis.metric_name} {format_number(float(means[0]))}{spread}"
    else:
        low, high = format_number(float(means.min())), format_number(float(means.max()))
        scores = f"mean {analysis.metric_name} {low} to {high} over {len(means)} arms"
    baselines = [as_float(run.metrics.get(BASELINE)) for run in runs]
    baseline = float(np.nanmax(baselines)) if np.isfinite(baselines).any() else math.nan
    histogram = f"; the histogram baseline has mIoU {format_number(baseline)}" if math.isfinite(baseline) else ""
    return f"{data}{length}, {plural(most, 'seed')}: {scores}{histogram}."


def describe_untrained(analysis: SweepAnalysis) -> list[str]:
    """Count the runs that did not train, by reason and arm, with the interval of their share."""
    texts = []
    for missed in dict.fromkeys(run.missed_class for run in analysis.untrained):
        counts = Counter(run.arm for run in analysis.untrained if run.missed_class == missed)
        total = sum(len(runs) for runs in analysis.finished)
        reason = "are below the histogram baseline" if missed is None else f"did not find {missed}"
        by_arm = [
            f"{analysis.arms[arm].label} {count} of {(n := len(analysis.finished[arm]))} "
            f"({' to '.join(f'{100 * share:.0f}' for share in proportion_interval(count, n))} %)"
            for arm, count in counts.most_common(MAX_NAMED)
        ]
        more = f" and {plural(len(counts) - MAX_NAMED, 'other arm')}" if len(counts) > MAX_NAMED else ""
        texts.append(f"{sum(counts.values())} of {total} runs {reason}: {', '.join(by_arm)}{more}.")
        typical = {run.arm for run in analysis.untrained if run.missed_class == missed and run.is_typical}
        if typical:
            labels = ", ".join(analysis.arms[arm].label for arm in sorted(typical))
            texts.append(f"None of the runs of {labels} found it: compared as they are.")
    if excluded := len({(run.arm, run.replicate) for run in analysis.untrained if run.is_excluded}):
        texts.append(f"{plural(excluded, 'run')} not trained: in no mean; all differences are between the others.")
    if analysis.split_classes:
        texts.append(
            "A mean over runs that found a class and runs that did not says little: no verdicts. Train longer."
        )
    return texts


def describe_questions(analysis: SweepAnalysis) -> list[str]:
    """Answer the questions: decided ones first, then the undecided ones and what would decide them."""
    if analysis.sweep.is_search:
        return []  # a warning says why it has none
    if not analysis.questions:
        return ["The sweep has no arms for its questions: see the comparisons of single arms, which are exploratory."]
    if not analysis.can_decide:
        return describe_too_few(analysis)
    decided = [q for q in analysis.questions if analysis.is_decided(q)]
    decided.sort(key=lambda q: (analysis.verdict(q) == EQUAL, -abs(q.contrast.difference)))
    texts = [answer(analysis, question) for question in decided[:MAX_SENTENCES]]
    if (more := len(decided) - MAX_SENTENCES) > 0:
        texts.append(f"The table of questions has {more} more.")
    undecided = [q for q in analysis.questions if analysis.verdict(q) in (UNDECIDED, NO_VERDICT)]
    if undecided:
        listed = [
            f"{question_name(analysis, q)} ({format_number(q.contrast.difference)}, {format_interval(q.contrast)})"
            for q in undecided[:MAX_SENTENCES]
        ]
        more = f"; and {len(undecided) - MAX_SENTENCES} more" if len(undecided) > MAX_SENTENCES else ""
        heading = "No verdict" if analysis.split_classes else "Undecided"
        texts += [f"{heading}: {'; '.join(listed)}{more}.", *describe_power(analysis, undecided)]
    few = sum(analysis.verdict(q) == TOO_FEW for q in analysis.questions)
    return [*texts, *([f"{plural(few, 'question')} with fewer than {MIN_SEEDS} seeds: no verdict."] if few else [])]


def question_name(analysis: SweepAnalysis, question: Question) -> str:
    """Return ``bilinear vs transposed``, after the key's name if the sweep asks about several keys."""
    names = shorten_keys(list(dict.fromkeys(q.key for q in analysis.questions)))
    return f"{names[question.key]}: " * (len(names) > 1) + f"{question.first} vs {question.second}"


def answer(analysis: SweepAnalysis, question: Question) -> str:
    """Return the sentence of a decided question."""
    verdict, contrast = analysis.verdict(question), question.contrast
    subject = question_name(analysis, question).removesuffix(f"{question.first} vs {question.second}")
    level = f"{100 * (1 - analysis.look.alpha):.3g} %"
    images = ""
    if not math.isnan(contrast.wide_low):
        wide = Contrast("", contrast.difference, contrast.wide_low, contrast.wide_high, contrast.by_seed)
        if wide.verdict(analysis.margin, analysis.sign) != verdict:
            images = f"; for other images {format_interval(wide)}, which does not decide it"
    if verdict == EQUAL:
        return (
            f"{subject}{question.first} and {question.second} are practically equal: difference "
            f"{format_number(contrast.difference)}, {level} interval {format_interval(contrast)}{images}."
            f"{cheaper_note(analysis, question)}"
        )
    better, worse = (question.first, question.second)[:: 1 if verdict == BETTER else -1]
    low, high = sorted((abs(contrast.low), abs(contrast.high)))
    return (
        f"{subject}{better} is better than {worse} by {format_number(abs(contrast.difference))} ({level} interval "
        f"{format_number(low)} to {format_number(high)}{images}).{size_note(analysis, question, verdict == WORSE)}"
    )


def cost_ratio(analysis: SweepAnalysis, question: Question, metric: str) -> float:
    """Return the first level's mean of a cost divided by the second's; nan if it is not known."""
    costs = analysis.scores_of(metric).means()
    first, second = (
        float(np.sum(np.maximum(w, 0) * costs, where=w > 0)) for w in (question.weights, -question.weights)
    )
    return first / second if second else math.nan


def cheaper_note(analysis: SweepAnalysis, question: Question) -> str:
    """Name the level to take of two equal ones: that with fewer operations, or else with fewer parameters."""
    for metric, noun in (("model/flops", "operations"), ("model/parameters", "parameters")):
        ratio = cost_ratio(analysis, question, metric)
        if abs(ratio - 1) >= NOTABLE:
            cheaper = question.first if ratio < 1 else question.second
            saved = 100 * (1 - min(ratio, 1 / ratio))
            return f" {cheaper} has {saved:.0f} % fewer {noun}: take it."
    return ""


def size_note(analysis: SweepAnalysis, question: Question, inverted: bool) -> str:
    """Say if the better level has another number of parameters, which may explain the difference."""
    ratio = cost_ratio(analysis, question, "model/parameters") ** (-1 if inverted else 1)
    if not math.isfinite(ratio) or abs(ratio - 1) < NOTABLE:
        return ""
    return f" It has {ratio:.2f} times the parameters (model.match=parameters makes them equal)."


def describe_too_few(analysis: SweepAnalysis) -> list[str]:
    """Say that nothing can be decided, and the largest observed difference."""
    contrasts = [question.contrast for question in analysis.questions if question.contrast.seeds]
    seeds = max((contrast.seeds for contrast in contrasts), default=0)
    texts = [
        f"Nothing can be decided with {plural(seeds, 'seed')}: at least {MIN_SEEDS} are needed, {RECOMMENDED_SEEDS} "
        f"are recommended."
    ]
    if contrasts:
        largest = max(contrasts, key=lambda contrast: abs(contrast.difference))
        texts.append(
            f"Largest observed difference: {largest.name}, {format_number(largest.difference)} "
            f"({format_interval(largest)} for this comparison alone)."
        )
    return texts


def describe_power(analysis: SweepAnalysis, undecided: list[Question]) -> list[str]:
    """Say which difference the undecided questions would have shown, and how many seeds would decide them."""
    differences = np.stack([question.contrast.by_seed for question in undecided])
    family = np.stack([q.contrast.by_seed for q in analysis.questions if q.contrast.is_resolvable])
    effect = detectable_difference(differences, analysis.look.alpha, family)
    if not math.isfinite(effect) or analysis.split_classes:
        return []
    seeds = seeds_needed(differences, analysis.margin, family)
    needed = "more than 1000 seeds" if seeds is None else f"about {plural(seeds, 'seed')}"
    return [
        f"A true difference of {format_number(effect)} would have been shown with {POWER * 100:.0f} % probability. To "
        f"tell a difference of {format_number(analysis.margin, 2)} from none takes {needed} per arm."
    ]


def describe_interaction(analysis: SweepAnalysis) -> list[str]:
    """Warn if the effect of one factor depends on the other: averages then hide it."""
    table = analysis.table
    if table is None or table.deviations is None or table.seeds < MIN_SEEDS or table.p > ALPHA:
        return []
    return [f"The effect of {table.factors[0]} depends on {table.factors[1]} (p = {table.p:.3g}): see their table."]


def describe_images(analysis: SweepAnalysis) -> list[str]:
    """Say that the results hold for the evaluated images only if these are too few or not independent."""
    if not 0 < analysis.units < MIN_UNITS:
        return []
    return [
        f"The evaluated images are {plural(analysis.units, 'independent unit')} (a clip, a volume, a patient): results "
        f"hold for these images."
    ]


def describe_folds(analysis: SweepAnalysis) -> list[str]:
    """Say what intervals speak of if runs differ in their fold."""
    if analysis.unit == "seed":
        return []
    folds = "fold" if analysis.unit == "fold" else "combination of a fold and a seed"
    evaluated = "its own validation images" if analysis.split == "val" else "the same test images"
    return [
        f"Each {folds} is a replicate, evaluated on {evaluated}: intervals speak of other divisions of these images. "
        f"Folds share training images, so their scores depend on each other and intervals are too narrow."
    ]


def describe_repeats(analysis: SweepAnalysis) -> list[str]:
    """Describe the seed noise: equal configurations with other seeds."""
    return [
        f"Seed noise: {analysis.arms[a].label} and {analysis.arms[b].label}, the same configuration, differ by "
        f"{format_number(abs(contrast.difference))} ({format_interval(contrast)})."
        for a, b, contrast in analysis.repeats
        if math.isfinite(contrast.difference)
    ]
