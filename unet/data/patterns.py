"""Patterns of file names: find the files of a data set, and the name of the item that each belongs to."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet.data.annotations import DrawnShapes
from unet.errors import UserError
from unet.io.image_formats import name_parts

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Names of folders and files for each split."""

PLACEHOLDERS = re.compile(r"\{(\w*)\}|(\*)")


@dataclass(frozen=True)
class FoundFile:
    """A file that matches a pattern.

    Attributes:
        path: the file.
        name: what identifies its item: the sub-folders that ``**`` matched, and ``{id}``.
        split, channel: what the placeholders matched; empty without them.
        shapes: the shapes of this item in a file of annotations of many.
    """

    path: Path
    name: str
    split: str = ""
    channel: str = ""
    shapes: DrawnShapes | None = None


class FilePattern:
    """A pattern of file names relative to a folder, such as ``images/{id}.*``.

    ``{id}`` identifies an item within its folder. ``**`` is any number of sub-folders, which are part of the identity.
    ``*`` is any text and no part of it; as a suffix (``.*``) it is one of ``suffixes``. ``{split}`` is a name in
    :data:`SPLIT_NAMES`, ``{channel}`` one of ``channels``. All other characters stand for themselves, and names are
    compared without regard to case.

    Args:
        text: the pattern.
        suffixes: the suffixes of ``.*``, lower case.
        channels: the texts of ``{channel}``.
        key: the config key in error messages.
        has_id: whether ``{id}`` is required.

    Raises:
        UserError: the pattern is invalid.
    """

    def __init__(
        self,
        text: str,
        suffixes: Collection[str],
        channels: Sequence[str] = (),
        key: str = "pattern",
        has_id: bool = True,
    ):
        if not isinstance(text, str) or (has_id and "{id}" not in text):
            raise UserError(f'{key}: expected a pattern with {{id}}, such as "images/{{id}}.*", found {text!r}')
        unknown = set(re.findall(r"\{(\w*)\}", text)) - {"id", "split", "channel"}
        if unknown:
            names = ", ".join(f"{{{name}}}" for name in sorted(unknown))
            raise UserError(f"{key}: {names} is no placeholder (valid: {{id}}, {{split}}, {{channel}}, *, **)")
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if text.startswith(("/", "~")) or ".." in parts or parts.count("**") > 1 or parts[-1:] in ([], ["**"]):
            raise UserError(f"{key}: expected a path below data.root with at most one folder **, found {text!r}")
        self.text, self.suffixes, self.channels = "/".join(parts), frozenset(suffixes), tuple(channels)
        self.arguments: dict[str, Any] = {"suffixes": suffixes, "channels": channels, "key": key, "has_id": has_id}
        self.any_suffix = parts[-1].endswith(".*")
        self.folders = [part if part == "**" else self.compile(part) for part in parts[:-1]]
        self.file = self.compile(parts[-1].removesuffix(".*") if self.any_suffix else parts[-1])
        self.has_split, self.has_channel = "{split}" in text, "{channel}" in text

    def compile(self, part: str) -> re.Pattern[str]:
        """Return the regular expression of one folder or file name."""
        expressions = {
            "id": "(?P<id>.+)",
            "split": f"(?P<split>{'|'.join(alias for aliases in SPLIT_NAMES.values() for alias in aliases)})",
            "channel": f"(?P<channel>{'|'.join(map(re.escape, self.channels))})",
        }
        regex, end, seen = "", 0, set()
        for match in PLACEHOLDERS.finditer(part):
            name = match[1]
            regex += re.escape(part[end : match.start()])
            regex += ".*" if match[2] else f"(?P={name})" if name in seen else expressions[name]
            seen.add(name)
            end = match.end()
        return re.compile(regex + re.escape(part[end:]), re.IGNORECASE | re.DOTALL)

    def below(self, folder: str) -> "FilePattern":
        """Return the pattern for the files below a folder, which may have placeholders."""
        return FilePattern(f"{folder}/{self.text}", **self.arguments)

    def path_of(self, file: FoundFile) -> str:
        """Return the path that an item's file has, with the placeholders that are unknown."""
        sub_folder, _, name = file.name.rpartition("/")
        text = self.text.replace("**/", f"{sub_folder}/" if sub_folder else "").replace("{id}", name)
        return text.replace("{split}", file.split) if file.split else text

    def find(self, root: Path) -> list[FoundFile]:
        """Return the files below a folder that match, sorted by path; hidden files and folders do not."""
        return sorted(self.search(root, self.folders, {}, (), ()), key=lambda file: natural_key(file.path))

    def search(
        self,
        folder: Path,
        parts: Sequence[str | re.Pattern[str]],
        captures: dict[str, str],
        sub_folders: tuple[str, ...],
        ancestors: tuple[Path, ...],
    ) -> Iterator[FoundFile]:
        """Yield the files below ``folder`` that match the other folders of the pattern, then its file name."""
        if parts and parts[0] == "**":
            yield from self.search(folder, parts[1:], captures, sub_folders, ancestors)
            for child in visible(folder):
                if child.is_dir() and (resolved := child.resolve()) not in ancestors:  # a link to a folder above it
                    yield from self.search(
                        child, parts, captures, (*sub_folders, child.name), (*ancestors, folder.resolve(), resolved)
                    )
            return
        for child in visible(folder):
            stem, suffix = name_parts(child)
            name = stem if not parts and self.any_suffix else child.name
            part = parts[0] if parts else self.file
            assert isinstance(part, re.Pattern)
            match = part.fullmatch(name)
            if match is None or (not parts and self.any_suffix and suffix not in self.suffixes):
                continue
            found = captures | {key: value or "" for key, value in match.groupdict().items()}
            if any(captures.get(key, value).lower() != value.lower() for key, value in found.items()):
                continue  # {id} or {split} stands in two places of the pattern
            if parts and child.is_dir():
                yield from self.search(child, parts[1:], found, sub_folders, ancestors)
            elif not parts and not child.is_dir():
                split = split_of_name(found.get("split", "")) or ""
                yield FoundFile(child, "/".join([*sub_folders, found.get("id", "")]), split, self.channel_of(found))

    def channel_of(self, captures: dict[str, str]) -> str:
        """Return the entry of ``channels`` that ``{channel}`` matched; an empty text without the placeholder."""
        text = captures.get("channel", "").lower()
        return next((channel for channel in self.channels if channel.lower() == text), "")


def split_of_name(name: str) -> str | None:
    """Return the split that a folder name stands for: ``valid`` -> ``val``; None: for none."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def visible(folder: Path) -> list[Path]:
    """Return the entries of a folder whose names do not start with a dot; none if it is no folder."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []


def natural_key(path: Path) -> tuple[tuple[str, ...], int, str]:
    """Return a sort key that orders 2.png before 10.png, folder by folder."""
    stem, _ = name_parts(path)
    number = int(stem) if stem.isdecimal() else -1
    return path.parts[:-1], number, "" if number >= 0 else path.name
