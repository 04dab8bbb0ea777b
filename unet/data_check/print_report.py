"""The report on a data set, for a terminal."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unet.data.label_map import format_values
from unet.data.mask_file import Key
from unet.data_check.findings import ERROR, Finding, format_counts
from unet.data_check.mask_encoding import IGNORE
from unet.data_check.suggest import Suggestion, class_structure
from unet.data_check.survey import MAX_MEASURED_MASKS, Survey
from unet.network.geometry import times

MAX_FILES = 5  # number of files listed for a finding; the others are counted


def print_report(
    console: Console, name: str, survey: Survey, findings: Sequence[Finding], suggestions: Sequence[Suggestion]
) -> None:
    """Print tables of images, masks, classes and objects, the findings, and the suggested settings."""
    splits = ", ".join(f"{len(facts)} {split}" for split, facts in survey.splits.items())
    console.print(f"data={name}: {len(survey.facts)} items, {splits}")
    for title, table in (
        ("Images", images_table(survey)),
        ("Masks", masks_table(survey)),
        ("Classes", classes_table(survey)),
        ("Objects", objects_table(survey)),
    ):
        if table.row_count:
            table.title, table.title_justify = title, "left"
            console.print(table)
    num_measured = sum(1 for _, mask in survey.masks if mask.shapes)
    if num_measured < len(survey.masks):
        text = f"objects were measured on {num_measured} of {len(survey.masks)} masks"
        console.print(f"{text} (at most {MAX_MEASURED_MASKS})")
    print_findings(console, findings)
    if suggestions:
        console.print("To try first:")
    for suggestion in suggestions:
        values = " ".join(suggestion.overrides)
        console.print(f"  {escape(suggestion.reason)}" + f"\n      {escape(values)}" * bool(values))


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print errors, warnings and notes, one per line, with the first of their files."""
    for finding in findings:
        console.print(f"{finding.kind}: {escape(finding.text)}")
        for file in finding.files[:MAX_FILES]:
            console.print(f"    {escape(file)}")
        if len(finding.files) > MAX_FILES:
            console.print(f"    and {len(finding.files) - MAX_FILES} more")
    errors = sum(1 for finding in findings if finding.kind == ERROR)
    others = len(findings) - errors
    console.print(f"{errors} error{'s' * (errors != 1)}, {others} other finding{'s' * (others != 1)}")


def images_table(survey: Survey) -> Table:
    table = Table("", "", show_header=False)
    if not survey.images:
        return table
    facts = [image for _, image in survey.images]
    sizes = sorted((image.size for image in facts), key=lambda size: (np.prod(size), size))
    smallest, median, largest = map(times, (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
    different = f"{len(set(sizes))} different: {smallest} to {largest}, median {median}"
    table.add_row("sizes", different if smallest != largest else f"all {median}")
    table.add_row("channels", format_counts(image.channels for image in facts))
    table.add_row("format", format_counts(image.format.name for image in facts))
    for dtype in sorted({image.dtype for image in facts}):
        finite = [image for image in facts if image.dtype == dtype and image.low <= image.high]
        highs = [image.high for image in finite]
        if finite:
            text = f"{min(image.low for image in finite):.6g} to {max(highs):.6g}"
            table.add_row(f"{dtype} values", f"{text}; maximum per image {min(highs):.6g} to {max(highs):.6g}")
    rotated = sum(1 for image in facts if image.format.orientation != 1)
    table.add_row("EXIF rotation", f"{rotated} images" if rotated else "none")
    return table


def masks_table(survey: Survey) -> Table:
    table = Table("", "", show_header=False)
    if survey.masks:
        table.add_row("format", format_counts(mask.format.name for _, mask in survey.masks))
        table.add_row("values", format_fractions(survey.counts))
    return table


def format_fractions(counts: dict[Key, int], most: int = 12) -> str:
    """Return the most frequent values with their fractions of the pixels."""
    total = sum(counts.values())
    by_frequency = sorted(counts, key=lambda key: -counts[key])
    text = ", ".join(f"{format_values([key])} ({counts[key] / total:.2%})" for key in by_frequency[:most])
    return text + (f" and {len(counts) - most} more" if len(counts) > most else "")


def classes_table(survey: Survey) -> Table:
    """Return the fraction of every class in every split, and the number of masks in which it occurs."""
    table = Table("class", "values", *(f"{split} pixels" for split in survey.splits), "in masks")
    if not survey.encoding.meaning:
        return table
    by_split = {split: survey.class_counts(facts) for split, facts in survey.splits.items()}
    occurs = Counter(name for _, mask in survey.masks for name, count in survey.mask_classes(mask).items() if count)
    for name in [*survey.encoding.classes, *([IGNORE] if occurs[IGNORE] else [])]:
        values = [key for key, meaning in survey.encoding.meaning.items() if meaning == name]
        fractions = [f"{c.get(name, 0) / max(1, sum(c.values())):.2%}" for c in by_split.values()]
        table.add_row(escape(name), format_values(values, 6), *fractions, f"{occurs[name]} of {len(survey.masks)}")
    return table


def objects_table(survey: Survey) -> Table:
    """Return the sizes of the connected components of every class."""
    table = Table("class", "objects", "area: 5 %, median, 95 %", "longest side", "width", "kind")
    for name, shapes in survey.shapes.items():
        if len(shapes):
            areas = ", ".join(f"{value:.0f}" for value in np.quantile(shapes.areas, [0.05, 0.5, 0.95]))
            kind = class_structure(survey, name) if name in survey.foreground else None
            sizes = areas, f"{shapes.extent:.0f}", f"{shapes.width:.1f}"
            table.add_row(escape(name), str(len(shapes)), *sizes, kind.name if kind else "")
    return table
