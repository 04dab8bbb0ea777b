"""Compare the answers of several sweeps, such as the same questions on several data sets."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from unet.report.analysis import SweepAnalysis
from unet.report.comparison import BETTER, EQUAL, NO_VERDICT, NOT_RUN, TOO_FEW, UNDECIDED, WORSE
from unet.report.summary_text import NONE, format_number
from unet.report.tables import Table

Question = tuple[str, frozenset[str]]
"""A key and two of its levels: what sweeps that ask the same have in common, whichever level they name first."""

REVERSED = {BETTER: WORSE, WORSE: BETTER}
COUNTED = (BETTER, WORSE, EQUAL, UNDECIDED, TOO_FEW, NO_VERDICT, NOT_RUN)


@dataclass(frozen=True)
class Answer:
    """The verdict on a question of one sweep: the difference of ``first`` minus ``second`` with its interval."""

    key: str
    first: str
    second: str
    verdict: str
    difference: float
    low: float
    high: float
    seeds: int

    @property
    def question(self) -> Question:
        return self.key, frozenset((self.first, self.second))

    def with_first(self, level: str) -> "Answer":
        """Return the answer with ``level``, one of both, as the first."""
        if level == self.first:
            return self
        verdict = REVERSED.get(self.verdict, self.verdict)
        levels = {"first": self.second, "second": self.first}
        return replace(self, **levels, verdict=verdict, difference=-self.difference, low=-self.high, high=-self.low)

    def __str__(self) -> str:
        if not self.seeds:
            return self.verdict
        low, high = format_number(self.low), format_number(self.high)
        return f"{self.verdict} {format_number(self.difference)} ({low} to {high})"


def list_answers(analysis: SweepAnalysis) -> list[Answer]:
    """Return the answer to every question of a sweep."""
    found = []
    for question in analysis.questions:
        contrast, verdict = question.contrast, analysis.verdict(question)
        values = contrast.difference, contrast.low, contrast.high
        found.append(Answer(question.key, question.first, question.second, verdict, *values, contrast.seeds))
    return found


def answer_table(analyses: Sequence[SweepAnalysis]) -> Table:
    """Return a table of questions by sweeps; see :func:`tabulate_answers`."""
    return tabulate_answers(
        [(analysis.sweep.folder.resolve().name, data_name(analysis), list_answers(analysis)) for analysis in analyses]
    )


def data_name(analysis: SweepAnalysis) -> str:
    """Return the name of the data set of all runs, or else of the folder."""
    names = {str(run.metrics["data"]) for runs in analysis.runs for run in runs.values() if "data" in run.metrics}
    return names.pop() if len(names) == 1 else analysis.sweep.folder.resolve().name


def tabulate_answers(sweeps: Sequence[tuple[str, str, Sequence[Answer]]]) -> Table:
    """Return a table of questions by data sets: verdict, difference and interval of the first level minus the second.

    Each sweep has a folder's name, a data set and its answers. Sweeps on the same data share a column if no two of them
    answer the same question; otherwise each has a column of its own. The intervals of one sweep hold together.
    """
    columns: dict[str, dict[Question, Answer]] = {}
    first_levels: dict[Question, str] = {}
    for folder, data, answers in sweeps:
        asked = Counter(answer.question for _, other, part in sweeps if other == data for answer in part)
        column = columns.setdefault(data if max(asked.values(), default=0) <= 1 else folder, {})
        for answer in answers:
            level = first_levels.setdefault(answer.question, answer.first)
            column[answer.question] = answer.with_first(level)
    rows = []
    for question in first_levels:
        answers = [column.get(question) for column in columns.values()]
        known = next(answer for answer in answers if answer)
        rows.append([f"{known.key}: {known.first} vs {known.second}", *(str(answer or NONE) for answer in answers)])
    rows.append(["all", *(count_verdicts(column.values()) for column in columns.values())])
    return Table(["first vs second", *columns], rows)


def count_verdicts(answers: Iterable[Answer]) -> str:
    """Return how many answers have each verdict, such as ``2 better, 1 undecided``."""
    count = Counter(answer.verdict for answer in answers)
    return ", ".join(f"{count[verdict]} {verdict}" for verdict in COUNTED if count[verdict])
