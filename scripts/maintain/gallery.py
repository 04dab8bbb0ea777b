"""Write the pictures of docs/operators.md: operators applied to a real image, and in a trained network.

    python scripts/maintain/gallery.py              an image after every downsampling and every upsampling operator
    python scripts/maintain/gallery.py outputs/RUN  the feature maps before and after every operator of a trained run

The operators of the gallery are untrained. To show the operators and not random weights, every convolution on an
operator's values passes its channels on (by its middle tap; to more channels by copies, to fewer by their mean), a
transposed one repeats each value, a wavelet keeps its means; predicted weights and offsets come from random weights.
The pictures are written to docs/pictures, or to the folder named by --out.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from unet import DOWN, UP
from unet.errors import UserError
from unet.io.atomic import atomic_write
from unet.io.provenance import ROOT
from unet.io.run_folder import CHECKPOINTS, load_run_config

SHARED = {"norm": "batch", "act": "relu"}
STAGES = 2
"""Stages at stride 2; after a single one the loss is hardly visible."""
COAST = (slice(312, 408), slice(2832, 2928))
"""Rows and columns of Blue Marble: islands and lakes of Denmark and southern Sweden (60.2-53.8 N, 8.8-15.2 E)."""
VALUE_CONVS = ("conv", "mix", "narrow", "block.0")
"""Names of the convolutions that an operator's values pass through."""
MARGIN, TITLE_HEIGHT = 4, 18


def coast() -> Tensor:
    """Return the crop (1, 3, 96, 96), brightened, in 0 to 1."""
    from unet.data.blue_marble import load_map

    image = torch.from_numpy(load_map()[0][COAST].copy()).movedim(-1, 0)[None] / 255
    return image.sqrt()


@torch.no_grad()
def pass_values_on(operator: nn.Module) -> nn.Module:
    """Set the weights so that values are passed on, and return the operator in evaluation mode."""
    for name, module in operator.named_modules():
        if name == "query":  # query and key use the same embedding
            operator.get_parameter("key.1.weight").copy_(operator.get_parameter("query.1.weight"))
        if name in VALUE_CONVS and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if isinstance(module, nn.ConvTranspose2d):
                module.weight.copy_(flat_patches(module))
            elif hasattr(operator, "axes"):
                module.weight.copy_(first_band(module))
            else:
                module.weight.copy_(middle_taps(module))
            if module.bias is not None:
                module.bias.zero_()
    return operator.eval()


def middle_taps(conv: nn.Conv2d) -> Tensor:
    """Return weights whose output channels are means of input channels, or copies if there are more outputs."""
    outputs, inputs = torch.arange(conv.out_channels), torch.arange(conv.in_channels)
    if conv.out_channels >= conv.in_channels:
        mixing = (outputs[:, None] * conv.in_channels // conv.out_channels == inputs).float()
    else:
        mixing = (inputs * conv.out_channels // conv.in_channels == outputs[:, None]).float()
    weight = torch.zeros_like(conv.weight)
    weight[:, :, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = mixing / mixing.sum(1, keepdim=True)
    return weight


def first_band(conv: nn.Conv2d) -> Tensor:
    """Return weights that select or write the means, which the orthonormal 2-D transform scales by two."""
    weight = torch.zeros_like(conv.weight)
    count = min(conv.in_channels, conv.out_channels)
    scale = 0.5 if conv.in_channels > conv.out_channels else 2.0
    weight[:count, :count, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = scale * torch.eye(count)
    return weight


def flat_patches(conv: nn.ConvTranspose2d) -> Tensor:
    """Return weights that repeat every pixel as a constant patch; overlapping patches sum to one on average."""
    overlap = conv.kernel_size[0] * conv.kernel_size[1] / (conv.stride[0] * conv.stride[1])
    return (torch.eye(conv.in_channels)[:, :, None, None] / overlap).expand_as(conv.weight)


@torch.no_grad()
def downsample(name: str, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the image after ``STAGES`` of a down operator, and the input of each stage."""
    inputs = []
    for _ in range(STAGES):
        inputs.append(image)
        torch.manual_seed(0)
        operator = DOWN.build(name, SHARED, channels=3, spatial_dims=2, stride=(2, 2))
        image = pass_values_on(operator)(image)
    return image, inputs


@torch.no_grad()
def upsample(spec: str | dict, coarse: Tensor, skips: Sequence[Tensor]) -> Tensor:
    """Return a coarse map after one stage of an up operator for every skip, with the inputs of the encoder as skips."""
    for skip in reversed(skips):
        torch.manual_seed(0)
        operator = UP.build(spec, SHARED, in_channels=3, out_channels=3, spatial_dims=2, stride=(2, 2))
        coarse = pass_values_on(operator)(coarse, skip)
    return coarse


def rmse(a: Tensor, b: Tensor) -> float:
    """Return the root mean square difference in grey levels of 255."""
    return 255 * float((a - b).square().mean().sqrt())


def to_pixels(image: Tensor, side: int) -> np.ndarray:
    """Convert (1, 3, H, W) in 0 to 1 to (side, side, 3) uint8, every pixel enlarged to a square."""
    array = (image[0].clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()
    return array.repeat(side // array.shape[0], 0).repeat(side // array.shape[1], 1)


def draw_grid(cells: dict[tuple[int, int], tuple[str, np.ndarray]]) -> Image.Image:
    """Draw images with their captions, by (x, y): columns of equal width, rows as high as their highest image."""
    width = MARGIN + max(pixels.shape[1] for _, pixels in cells.values())
    heights = [0] * (1 + max(y for _, y in cells))
    for (_, y), (_, pixels) in cells.items():
        heights[y] = max(heights[y], pixels.shape[0] + MARGIN + TITLE_HEIGHT)
    page = Image.new("RGB", (width * (1 + max(x for x, _ in cells)), sum(heights)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=12)
    for (x, y), (caption, pixels) in cells.items():
        top = sum(heights[:y])
        draw.text((x * width + 2, top + 1), caption, "black", font)
        page.paste(Image.fromarray(pixels), (x * width, top + TITLE_HEIGHT))
    return page


def draw_rows(images: Sequence[tuple[str, np.ndarray]], columns: int) -> Image.Image:
    """Draw images row by row."""
    return draw_grid({(index % columns, index // columns): image for index, image in enumerate(images)})


def downsampled() -> Image.Image:
    """Draw the image after every down operator."""
    image = coast()
    images = {"the image": image} | {name: downsample(name, image)[0] for name in DOWN}
    return draw_rows([(caption, to_pixels(output, 192)) for caption, output in images.items()], 5)


def upsampled() -> Image.Image:
    """Draw the local means of the image after every up operator."""
    image = coast()
    coarse, skips = downsample("avg", image)
    specs: dict[str, str | dict] = {name: name for name in UP}
    specs |= {f"transposed, kernel {size}": {"name": "transposed", "kernel_size": size} for size in (3, 4)}
    images = {"the image": image, "its means": coarse}
    images |= {caption: upsample(spec, coarse, skips) for caption, spec in specs.items()}
    return draw_rows([(caption, to_pixels(output, 192)) for caption, output in images.items()], 5)


def pairs() -> Image.Image:
    """Draw every down operator (rows) followed by every up operator (columns), with the root mean square error."""
    image, cells = coast(), []
    for down in DOWN:
        coarse, skips = downsample(down, image)
        cells.append((down, to_pixels(coarse, 96)))
        for up in UP:
            output = upsample(up, coarse, skips)
            cells.append((f"{up} {rmse(output, image):.0f}", to_pixels(output, 96)))
    return draw_rows(cells, 1 + len(UP))


def features(run: Path, count: int = 5) -> Image.Image:
    """Draw the feature maps around every operator of a run's best checkpoint, for the image of highest label entropy.

    The encoder is in the left column, the decoder in the right one, corresponding stages side by side.

    Raises:
        UserError: the folder contains no finished run, or the data is missing.
    """
    from unet.analysis.feature_maps import draw_operator_io, feature_maps
    from unet.data.allowed_classes import check_targets
    from unet.training.build import build_data, build_task
    from unet.training.train import load_best

    config = load_run_config(run)
    check_targets(config.data)
    data = build_data(config)
    data.scan()
    task = build_task(config, data).eval()
    if not load_best(task, run):
        raise UserError(f"{run / CHECKPOINTS}: no checkpoint found; expected the folder of a finished run")
    split = data.eval_split
    (index,) = data.samples[split].highest_entropy(1)
    maps = feature_maps(task.net, task.normalize(data.example(split, index)))
    images, half = [(item.title, draw_operator_io(item, count)) for item in maps], -(-len(maps) // 2)
    places = [*((0, y) for y in range(half)), *((1, y) for y in reversed(range(len(images) - half)))]
    return draw_grid(dict(zip(places, images, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="folder of a finished run; default: the gallery")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures", help="folder of the pictures")
    args = parser.parse_args()
    try:
        pictures = {draw.__name__: draw for draw in (downsampled, upsampled, pairs)}
        args.out.mkdir(parents=True, exist_ok=True)
        for name, draw in ({"features": partial(features, args.run)} if args.run else pictures).items():
            path = args.out / f"{name}.png"
            with atomic_write(path) as file:
                draw().save(file, "PNG", optimize=True)
            print(path)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
