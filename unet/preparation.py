"""What evaluation does to a picture before the network (a resize, a padding), done by torch and undone afterwards.

A checkpoint names these transforms. None of what it names is ever imported or called: the names are looked up in a
table here, and one that is not in it is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from unet.errors import UserError

Undo = Callable[[Tensor], Tensor]
"""Maps of the prepared picture (1, c, h, w) -> maps of the picture as it came (1, c, H, W)."""
LINEAR, CONSTANT = 1, 0
"""OpenCV's numbers of bilinear interpolation and of a constant border."""


def prepared(image: Tensor, steps: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Undo]:
    """A picture (1, C, H, W) as the steps make it, and the way back.

    Args:
        image: as stored.
        steps: albumentations' names and arguments: ``{"_target_": "albumentations.Resize", "height": 256, ...}``.

    Raises:
        UserError: a transform, or an argument of one, that is not in the table.
    """
    undos: list[Undo] = []
    for step in steps:
        arguments = {key: value for key, value in step.items() if key not in (*FOR_MASKS, "_target_")}
        name = str(step.get("_target_"))
        try:
            if arguments.pop("p", 1) not in (1, True):
                raise TypeError("one that is left to chance")
            image, undo = STEPS[name](image, **arguments)
        except KeyError:
            raise refusal(name, f"which is none of {', '.join(STEPS)}") from None
        except TypeError as error:
            raise refusal(name, f"with {arguments} ({error})") from None
        undos.insert(0, undo)

    def back(maps: Tensor) -> Tensor:
        for undo in undos:
            maps = undo(maps)
        return maps

    return image, back


def refusal(name: str, why: str) -> UserError:
    return UserError(
        f"the checkpoint's data.eval_transforms has {name}, {why}: predictions could not be brought back to the image; "
        f"evaluate with scripts/evaluate.py, or leave these transforms out with transforms=false"
    )


def resized(image: Tensor, size: tuple[int, int]) -> tuple[Tensor, Undo]:
    before = image.shape[2:]
    if tuple(before) == size:
        return image, lambda maps: maps
    found = interpolated(image.float(), size)
    # OpenCV gives integers back as integers.
    return (found if image.is_floating_point() else found.round()), lambda maps: interpolated(maps, before)


def interpolated(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


def resize(image: Tensor, height: int, width: int, interpolation: int = LINEAR) -> tuple[Tensor, Undo]:
    only(interpolation=(interpolation, LINEAR))
    return resized(image, (height, width))


def scaled(side: Callable[..., int]) -> Callable[..., tuple[Tensor, Undo]]:
    def scale(image: Tensor, max_size: int, interpolation: int = LINEAR) -> tuple[Tensor, Undo]:
        only(interpolation=(interpolation, LINEAR))
        height, width = image.shape[2:]
        factor = max_size / side(height, width)
        return resized(image, (max(1, round(height * factor)), max(1, round(width * factor))))

    return scale


def pad_if_needed(
    image: Tensor,
    min_height: int,
    min_width: int,
    position: str = "center",
    border_mode: int = CONSTANT,
    fill: float = 0,
) -> tuple[Tensor, Undo]:
    only(position=(position, "center"), border_mode=(border_mode, CONSTANT))
    height, width = image.shape[2:]
    top, left = max(0, min_height - height) // 2, max(0, min_width - width) // 2
    below, right = max(0, min_height - height) - top, max(0, min_width - width) - left
    padded = F.pad(image.float(), (left, right, top, below), value=float(fill))
    return padded, lambda maps: maps[:, :, top : top + height, left : left + width]


def only(**arguments: tuple[Any, Any]) -> None:
    for name, (found, known) in arguments.items():
        if found != known:
            raise TypeError(f"{name}={found!r} is not known, only {known!r}")


STEPS: dict[str, Callable[..., tuple[Tensor, Undo]]] = {
    "albumentations.Resize": resize,
    "albumentations.LongestMaxSize": scaled(max),
    "albumentations.SmallestMaxSize": scaled(min),
    "albumentations.PadIfNeeded": pad_if_needed,
}
FOR_MASKS = ("mask_interpolation", "fill_mask")
"""Arguments that change targets alone."""
