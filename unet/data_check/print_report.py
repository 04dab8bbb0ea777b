"""The report on a data set, for a terminal."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unet.data.files import format_values
from unet.data_check.findings import ERROR, Finding
from unet.data_check.mask_encoding import IGNORE
from unet.data_check.mask_values import Key
from unet.data_check.suggest import Suggestion, class_structure
from unet.data_check.survey import MAX_MEASURED_MASKS, Survey
from unet.network.geometry import times

MAX_FILES = 5
"""Files named for a finding; the others are counted."""


def print_report(
    console: Console, name: str, survey: Survey, found: Sequence[Finding], what: Sequence[Suggestion]
) -> None:
    """Images, masks, classes and objects; what is wrong; what to try."""
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
    measured = sum(1 for _, mask in survey.masks if mask.shapes)
    if measured < len(survey.masks):
        console.print(
            f"objects were measured on {measured} of {len(survey.masks)} masks (at most {MAX_MEASURED_MASKS})"
        )
    print_findings(console, found)
    if what:
        console.print("To try first:")
    for suggestion in what:
        values = " ".join(suggestion.overrides)
        console.print(f"  {escape(suggestion.reason)}" + f"\n      {escape(values)}" * bool(values))


def print_findings(console: Console, found: Sequence[Finding]) -> None:
    """Errors, warnings and notes, one a line, with the first of their files."""
    for finding in found:
        console.print(f"{finding.kind}: {escape(finding.text)}")
        for file in finding.files[:MAX_FILES]:
            console.print(f"    {escape(file)}")
        if len(finding.files) > MAX_FILES:
            console.print(f"    and {len(finding.files) - MAX_FILES} more")
    errors = sum(1 for finding in found if finding.kind == ERROR)
    console.print(f"{errors} error{'s' * (errors != 1)}, {len(found) - errors} other findings")


def images_table(survey: Survey) -> Table:
    table = Table("", "", show_header=False)
    if not survey.images:
        return table
    facts = [image for _, image in survey.images]
    sizes = sorted((image.size for image in facts), key=lambda size: (np.prod(size), size))
    least, median, largest = map(times, (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
    table.add_row("sizes", f"{len(set(sizes))} different; from {least} over {median} (median) to {largest}")
    table.add_row("channels", tally(image.channels for image in facts))
    table.add_row("stored as", tally(image.stored.kind for image in facts))
    for kind in sorted({image.dtype for image in facts}):
        lows = [image.low for image in facts if image.dtype == kind]
        highs = [image.high for image in facts if image.dtype == kind]
        table.add_row(f"{kind} values", f"{np.nanmin(lows):.6g} to {np.nanmax(highs):.6g}; largest {numbers(highs)}")
    turned = sum(1 for image in facts if image.stored.turned != 1)
    table.add_row("EXIF rotation", f"{turned} images" if turned else "none")
    return table


def masks_table(survey: Survey) -> Table:
    table = Table("", "", show_header=False)
    if not survey.masks:
        return table
    facts = [mask for _, mask in survey.masks]
    table.add_row("stored as", tally(mask.stored.kind for mask in facts))
    table.add_row("values", value_line(survey.counts))
    return table


def value_line(counts: dict[Key, int], most: int = 12) -> str:
    total = sum(counts.values())
    common = sorted(counts, key=lambda key: -counts[key])
    shown = [f"{format_values([key])} ({counts[key] / total:.2%})" for key in common[:most]]
    return ", ".join(shown) + (f" and {len(common) - most} more" if len(common) > most else "")


def classes_table(survey: Survey) -> Table:
    """Pixels of every class in every split, and in how many masks it occurs."""
    table = Table("class", "values", *(f"{split} pixels" for split in survey.splits), "in masks")
    if not survey.encoding.meaning:
        return table
    by_split = {split: survey.class_counts(facts) for split, facts in survey.splits.items()}
    occurs = Counter(name for _, mask in survey.masks for name, count in survey.mask_classes(mask).items() if count)
    for name in [*survey.encoding.classes, *([IGNORE] if occurs[IGNORE] else [])]:
        values = [key for key, meant in survey.encoding.meaning.items() if meant == name]
        shares = [f"{c.get(name, 0) / max(1, sum(c.values())):.2%}" for c in by_split.values()]
        table.add_row(escape(name), format_values(values, 6), *shares, f"{occurs[name]} of {len(survey.masks)}")
    return table


def objects_table(survey: Survey) -> Table:
    """Sizes of the connected components of every class."""
    columns = ("class", "objects", "area: 5 %, median, 95 %", "longest side", "width", "so they are")
    table = Table(*columns)
    for name, shapes in survey.shapes.items():
        if len(shapes):
            areas = ", ".join(f"{value:.0f}" for value in np.quantile(shapes.areas, [0.05, 0.5, 0.95]))
            kind = class_structure(survey, name) if name in survey.foreground else None
            sizes = areas, f"{shapes.extent:.0f}", f"{shapes.width:.1f}"
            table.add_row(escape(name), str(len(shapes)), *sizes, kind.name if kind else "")
    return table


def numbers(values: Sequence[float]) -> str:
    found = np.array(values)[np.isfinite(values)]
    return f"{found.min():.6g} to {found.max():.6g}" if found.size else "none"


def tally(values: Iterable[Hashable]) -> str:
    """``3 x 12, 4 x 1``: each value, and how often, where there is more than one."""
    found = Counter(values)
    if len(found) == 1:
        return str(next(iter(found)))
    return ", ".join(f"{value} ({count})" for value, count in found.most_common())
