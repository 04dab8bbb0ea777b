"""Images whose channels are in one file each, such as ``case_0000.png`` and ``case_0001.png``."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet.errors import UserError
from unet.io.image_formats import name_parts

PLACEHOLDERS = {r"\{id\}": "(?P<id>.+)", r"\.\*": r"\.[^.]+(\.gz)?", r"\*": ".*"}
"""Parts of a file name pattern (escaped) and their regular expressions; ``{channel}`` is one of the channels."""


@dataclass(frozen=True)
class ImageFiles:
    """The file of an image, or the files of its channels in the order of the training.

    Attributes:
        paths: the files.
        stem: the name of its outputs, without a suffix.
        missing: the channels without a file.
    """

    paths: tuple[Path, ...]
    stem: str
    missing: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Return the first file, which names the image in messages."""
        return self.paths[0]

    def require_all(self) -> None:
        """Raise UserError if a channel has no file."""
        if self.missing:
            raise UserError(
                f"{self.path}: no file of channel {', '.join(self.missing)} of {self.stem}; the network was trained on "
                f"one file a channel"
            )


def group_channels(files: Sequence[Path], description: Mapping[str, Any]) -> Iterator[ImageFiles]:
    """Yield the images of a list of files, each in the place of its first file.

    If the training images had one file a channel (``data.source.channels``), files of one folder that differ in the
    channel alone are one image. Other files are an image each.
    """
    channels, pattern = description.get("channel_names"), description.get("channel_file") or ""
    if not channels or not ("{id}" in pattern and "{channel}" in pattern):
        yield from (ImageFiles((path,), name_parts(path)[0]) for path in files)
        return
    expression = channel_expression(pattern, channels)
    groups: dict[tuple[Path, str], dict[str, Path]] = {}
    for path in files:
        match = expression.fullmatch(path.name)
        key, channel = (path.parent, match["id"]) if match else (path, ""), match["channel"] if match else ""
        groups.setdefault(key, {}).setdefault(channel.lower(), path)
    for (_, stem), found in groups.items():
        if "" in found:
            yield ImageFiles((found[""],), name_parts(found[""])[0])
            continue
        missing = tuple(channel for channel in channels if channel.lower() not in found)
        yield ImageFiles(tuple(found[name.lower()] for name in channels if name not in missing), stem, missing)


def channel_expression(pattern: str, channels: Sequence[str]) -> re.Pattern[str]:
    """Return the regular expression of a file name pattern with ``{id}`` and ``{channel}``, such as that of a run."""
    expression = re.escape(pattern).replace(r"\{channel\}", f"(?P<channel>{'|'.join(map(re.escape, channels))})", 1)
    for placeholder, replacement in PLACEHOLDERS.items():
        expression = expression.replace(placeholder, replacement, 1)
    return re.compile(expression, re.IGNORECASE)
