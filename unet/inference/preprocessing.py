"""Apply the evaluation transforms of a training (resizing, padding) with torch, and undo them on predictions.

The names of transforms in a checkpoint are looked up in a table and never imported; unknown names are an error.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from unet.errors import UserError

Undo = Callable[[Tensor], Tensor]
"""Maps of the transformed image (1, c, h, w) -> maps of the original image (1, c, H, W)."""
LINEAR, CONSTANT = 1, 0
"""OpenCV's constants for bilinear interpolation and a constant border."""


def apply_eval_transforms(image: Tensor, transforms: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Undo]:
    """Return an image after the transforms, and the function that undoes them.

    Args:
        image: (1, C, H, W) as stored.
        transforms: albumentations' names and arguments: ``{"_target_": "albumentations.Resize", "height": 256, ...}``.

    Raises:
        UserError: a transform or one of its arguments is not supported.
    """
    undos: list[Undo] = []
    for transform in transforms:
        for_masks = ("mask_interpolation", "fill_mask")
        arguments = {key: value for key, value in transform.items() if key not in (*for_masks, "_target_")}
        name = str(transform.get("_target_"))
        try:
            if arguments.pop("p", 1) not in (1, True):
                raise TypeError("random transforms are not supported")
            image, undo = TRANSFORMS[name](image, **arguments)
        except KeyError:
            raise unsupported(name, f"(supported: {', '.join(TRANSFORMS)})") from None
        except TypeError as error:
            raise unsupported(name, f"with {arguments} ({error})") from None
        undos.insert(0, undo)

    return image, lambda maps: reduce(lambda maps, undo: undo(maps), undos, maps)


def unsupported(name: str, details: str) -> UserError:
    return UserError(
        f"the checkpoint's data.eval_transforms contains {name}, which prediction does not support {details}; evaluate "
        f"with scripts/evaluate.py, or predict without these transforms (transforms=false)"
    )


def resize_to(image: Tensor, size: tuple[int, int]) -> tuple[Tensor, Undo]:
    original_size = image.shape[2:]
    if tuple(original_size) == size:
        return image, lambda maps: maps
    output = interpolate(image.float(), size)
    # OpenCV returns integers for integers.
    return (output if image.is_floating_point() else output.round()), lambda maps: interpolate(maps, original_size)


def interpolate(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


def resize(image: Tensor, height: int, width: int, interpolation: int = LINEAR) -> tuple[Tensor, Undo]:
    require_default("interpolation", interpolation, LINEAR)
    return resize_to(image, (height, width))


def resize_side(side: Callable[..., int]) -> Callable[..., tuple[Tensor, Undo]]:
    def scale(image: Tensor, max_size: int, interpolation: int = LINEAR) -> tuple[Tensor, Undo]:
        require_default("interpolation", interpolation, LINEAR)
        height, width = image.shape[2:]
        factor = max_size / side(height, width)
        return resize_to(image, (max(1, round(height * factor)), max(1, round(width * factor))))

    return scale


def pad_if_needed(
    image: Tensor,
    min_height: int,
    min_width: int,
    position: str = "center",
    border_mode: int = CONSTANT,
    fill: float = 0,
) -> tuple[Tensor, Undo]:
    require_default("position", position, "center")
    require_default("border_mode", border_mode, CONSTANT)
    height, width = image.shape[2:]
    top, left = max(0, min_height - height) // 2, max(0, min_width - width) // 2
    below, right = max(0, min_height - height) - top, max(0, min_width - width) - left
    padded = F.pad(image.float(), (left, right, top, below), value=float(fill))
    return padded, lambda maps: maps[:, :, top : top + height, left : left + width]


def require_default(name: str, value: Any, supported: Any) -> None:
    """Raise TypeError unless an argument has the supported value."""
    if value != supported:
        raise TypeError(f"{name}={value!r}, expected {supported!r}")


TRANSFORMS: dict[str, Callable[..., tuple[Tensor, Undo]]] = {
    "albumentations.Resize": resize,
    "albumentations.LongestMaxSize": resize_side(max),
    "albumentations.SmallestMaxSize": resize_side(min),
    "albumentations.PadIfNeeded": pad_if_needed,
}
