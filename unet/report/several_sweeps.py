"""Compare the answers of several sweeps, such as the same questions on several data sets."""

from collections import Counter
from collections.abc import Sequence

from unet.report.analysis import SweepAnalysis
from unet.report.comparison import BETTER, EQUAL, NO_VERDICT, NOT_RUN, TOO_FEW, UNDECIDED, WORSE
from unet.report.questions import Question
from unet.report.summary_text import NONE, format_number
from unet.report.tables import Table

REVERSED = {BETTER: WORSE, WORSE: BETTER}
COUNTED = (BETTER, WORSE, EQUAL, UNDECIDED, TOO_FEW, NO_VERDICT, NOT_RUN)


def answer_table(analyses: Sequence[SweepAnalysis]) -> Table:
    """Return a table of questions by sweeps: verdict, difference and interval of the first level minus the second.

    The intervals of one column hold together; those of different columns do not.
    """
    order: dict[tuple[str, frozenset[str]], tuple[str, str]] = {}
    for analysis in analyses:
        for question in analysis.questions:
            order.setdefault(identify(question), (question.first, question.second))
    rows, counts = [], [Counter[str]() for _ in analyses]
    for (key, _), (first, second) in order.items():
        row = [f"{key}: {first} vs {second}"]
        for analysis, count in zip(analyses, counts, strict=True):
            asked = [q for q in analysis.questions if identify(q) == (key, frozenset((first, second)))]
            verdict, text = answer_cell(analysis, asked[0], first) if asked else ("", NONE)
            count.update([verdict] if asked else [])
            row.append(text)
        rows.append(row)
    rows.append(["all", *(", ".join(f"{n} {name}" for name in COUNTED if (n := count[name])) for count in counts)])
    names = [analysis.sweep.folder.resolve().name for analysis in analyses]
    return Table(["first vs second", *names], rows)


def identify(question: Question) -> tuple[str, frozenset[str]]:
    return question.key, frozenset((question.first, question.second))


def answer_cell(analysis: SweepAnalysis, question: Question, first: str) -> tuple[str, str]:
    """Return verdict and text of a question, of ``first`` minus the other level."""
    verdict, contrast = analysis.verdict(question), question.contrast
    low, high, sign = contrast.low, contrast.high, 1
    if question.first != first:
        verdict, low, high, sign = REVERSED.get(verdict, verdict), -high, -low, -1
    if not contrast.seeds:
        return verdict, verdict
    interval = f"{format_number(low)} to {format_number(high)}"
    return verdict, f"{verdict} {format_number(sign * contrast.difference)} ({interval})"
