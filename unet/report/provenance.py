"""Warn of runs that differ in commit, data, machine or versions."""

from collections.abc import Sequence

from unet.report.read_sweep import Run


def provenance_warnings(runs: Sequence[Run]) -> list[str]:
    """Return a warning for each kind of difference."""

    def distinct(key: str) -> list[str]:
        return sorted({str(run.metrics[key]) for run in runs if key in run.metrics})

    warnings = []
    commits = distinct("commit")
    if len(commits) > 1:
        warnings.append(
            f"The runs were made at {len(commits)} commits ({', '.join(c[:10] for c in commits)}): differences may "
            f"come from the code."
        )
    if any(c.endswith("+changes") for c in commits):
        warnings.append("Some runs were made with uncommitted changes: their commit does not reproduce them.")
    for key, noun in (("data", "data sets"), ("machine", "kinds of machine"), ("precision", "precisions")):
        if len(names := distinct(key)) > 1:
            warnings.append(f"The runs used {len(names)} {noun} ({', '.join(names)}).")
    splits = {key.split("/")[0] for run in runs for key in run.metrics if key in ("test/miou", "val/miou")}
    if len(splits) > 1:
        warnings.append("Some runs have test scores and some only validation scores; the test scores are compared.")
    versions = {key for run in runs for key in run.metrics if key.startswith("version/")}
    if packages := [key.removeprefix("version/") for key in sorted(versions) if len(distinct(key)) > 1]:
        warnings.append(f"The runs used different versions of {', '.join(packages)}.")
    return warnings
