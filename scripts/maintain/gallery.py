"""The pictures of docs/operators.md that show operators at work on a real image, and in a trained network.

    python scripts/maintain/gallery.py              one coast through every down and every up operator
    python scripts/maintain/gallery.py outputs/RUN  the feature maps before and after every operator of a trained run

Nothing is trained for the gallery. So that operators are seen and not random weights, every convolution that carries
values passes its channels on (by its middle tap; to more channels by copies, to fewer by their mean), a transposed one
paints a flat patch, a wavelet keeps its means; what predicts weights or offsets is as it was drawn.
The pictures go to docs/pictures, or to the folder named by --out.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from unet import DOWN, UP
from unet.errors import UserError
from unet.io.atomic import atomic_write
from unet.io.provenance import ROOT
from unet.io.run_folder import CHECKPOINTS, run_config

SHARED = {"norm": "batch", "act": "relu"}
STAGES = 2
"""Stages at stride 2: what one of them loses hardly shows."""
COAST = (slice(312, 408), slice(2832, 2928))
"""Rows and columns of Blue Marble: Denmark and southern Sweden, 60.2 to 53.8 N, 8.8 to 15.2 E: islands and lakes."""
CARRIERS = ("conv", "mix", "narrow", "block.0")
"""How the convolutions are called through which an operator's values pass."""
GAP, LABEL = 4, 18


def coast() -> Tensor:
    """The crop (1, 3, 96, 96), brightened, in 0 to 1."""
    from unet.data.blue_marble import load_map

    image = torch.from_numpy(load_map()[0][COAST].copy()).movedim(-1, 0)[None] / 255
    return image.sqrt()


@torch.no_grad()
def passing(operator: nn.Module) -> nn.Module:
    """The operator with every convolution that carries values made to pass them on, in evaluation mode."""
    for name, module in operator.named_modules():
        if name == "query":  # what is compared is seen through one embedding, so that like finds like
            operator.get_parameter("key.1.weight").copy_(operator.get_parameter("query.1.weight"))
        if name in CARRIERS and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
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
    """Each output channel is the mean of its share of the input channels, or a copy of the one it belongs to."""
    outs, ins = torch.arange(conv.out_channels), torch.arange(conv.in_channels)
    if conv.out_channels >= conv.in_channels:
        mixing = (outs[:, None] * conv.in_channels // conv.out_channels == ins).float()
    else:
        mixing = (ins * conv.out_channels // conv.in_channels == outs[:, None]).float()
    weight = torch.zeros_like(conv.weight)
    weight[:, :, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = mixing / mixing.sum(1, keepdim=True)
    return weight


def first_band(conv: nn.Conv2d) -> Tensor:
    """The means to the channels, or the channels to the means: in 2-D the orthonormal transform makes a mean double."""
    weight = torch.zeros_like(conv.weight)
    least = min(conv.in_channels, conv.out_channels)
    scale = 0.5 if conv.in_channels > conv.out_channels else 2.0
    weight[:least, :least, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = scale * torch.eye(least)
    return weight


def flat_patches(conv: nn.ConvTranspose2d) -> Tensor:
    """Every sample paints a flat patch of its channel; where patches overlap they add up to one on average."""
    overlap = conv.kernel_size[0] * conv.kernel_size[1] / (conv.stride[0] * conv.stride[1])
    return (torch.eye(conv.in_channels)[:, :, None, None] / overlap).expand_as(conv.weight)


@torch.no_grad()
def shrink(name: str, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The image through ``STAGES`` of a down operator, and what each of them was given."""
    given = []
    for _ in range(STAGES):
        given.append(image)
        torch.manual_seed(0)
        operator = DOWN.build(name, SHARED, channels=3, spatial_dims=2, stride=(2, 2))
        image = passing(operator)(image)
    return image, given


@torch.no_grad()
def grow(spec: str | dict, coarse: Tensor, skips: Sequence[Tensor]) -> Tensor:
    """A coarse map through as many stages of an up operator as there are skips, handed what the encoder was given."""
    for skip in reversed(skips):
        torch.manual_seed(0)
        operator = UP.build(spec, SHARED, in_channels=3, out_channels=3, spatial_dims=2, stride=(2, 2))
        coarse = passing(operator)(coarse, skip)
    return coarse


def rms(one: Tensor, other: Tensor) -> float:
    """Root mean square difference, in grey levels of 255."""
    return 255 * float((one - other).square().mean().sqrt())


def pixels(image: Tensor, side: int) -> np.ndarray:
    """(1, 3, H, W) in 0 to 1 -> (side, side, 3) uint8, its samples enlarged to squares."""
    array = (image[0].clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()
    return array.repeat(side // array.shape[0], 0).repeat(side // array.shape[1], 1)


def tiles(rows: Sequence[Sequence[tuple[str, np.ndarray]]]) -> Image.Image:
    """Pictures in rows, each with its caption above."""
    side = rows[0][0][1].shape[0]
    step = side + GAP, side + GAP + LABEL
    page = Image.new("RGB", (step[0] * max(map(len, rows)), step[1] * len(rows)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=12)
    for y, row in enumerate(rows):
        for x, (caption, picture) in enumerate(row):
            draw.text((x * step[0] + 2, y * step[1] + 1), caption, "black", font)
            page.paste(Image.fromarray(picture), (x * step[0], y * step[1] + LABEL))
    return page


def in_rows(items: list, length: int) -> list[list]:
    return [items[start : start + length] for start in range(0, len(items), length)]


def shrunk() -> Image.Image:
    """The coast, and what every down operator leaves of it."""
    image = coast()
    left = [(name, pixels(shrink(name, image)[0], 192)) for name in DOWN]
    return tiles(in_rows([("the image", pixels(image, 192)), *left], 5))


def grown() -> Image.Image:
    """One coarse map, the image's local means, through every up operator."""
    image = coast()
    coarse, skips = shrink("avg", image)
    kernels = [{"name": "transposed", "kernel_size": 3}, {"name": "transposed", "kernel_size": 4}]
    choices: dict[str, str | dict] = {name: name for name in UP}
    choices |= {f"transposed, kernel {kernel['kernel_size']}": kernel for kernel in kernels}
    made = [(caption, pixels(grow(spec, coarse, skips), 192)) for caption, spec in choices.items()]
    return tiles(in_rows([("the image", pixels(image, 192)), ("its means", pixels(coarse, 192)), *made], 5))


def pairs() -> Image.Image:
    """Every down operator (rows) and back through every up operator (columns), with the root mean square error."""
    image = coast()
    rows = []
    for down in DOWN:
        coarse, skips = shrink(down, image)
        row = [(down, pixels(coarse, 96))]
        for up in UP:
            back = grow(up, coarse, skips)
            row.append((f"{up} {rms(back, image):.0f}", pixels(back, 96)))
        rows.append(row)
    return tiles(rows)


def load_run(folder: Path) -> tuple[Any, Any]:
    """Return the task of a finished run with its best weights, in evaluation mode, and its checked data.

    Raises:
        UserError: the folder holds no finished run, or the data is gone.
    """
    from unet.data.targets import check_targets
    from unet.training.build import build_data, build_task
    from unet.training.train import load_best

    config = run_config(folder)
    check_targets(config.data)
    data = build_data(config)
    data.scan()
    task = build_task(config, data)
    if not load_best(task, folder):
        raise UserError(f"{folder / CHECKPOINTS}: no checkpoint here; expected the folder of a finished run")
    return task.eval(), data


def features(run: Path, count: int = 5) -> Image.Image:
    """The feature maps before and after every operator of a run's best checkpoint, on its most varied image."""
    from unet.analysis.feature_maps import feature_maps, passage_picture

    task, data = load_run(run)
    split = data.eval_split
    (index,) = data.samples[split].highest_entropy(1)
    found = feature_maps(task.net, task.normalize(data.example(split, index)))
    return stacked([(passage.title, passage_picture(passage, count)) for passage in found])


def stacked(parts: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
    """Pictures in two columns, the encoder's on the left and on the right the decoder's that undo them."""
    half = -(-len(parts) // 2)
    columns = [parts[:half], parts[half:][::-1]]
    width = max(picture.shape[1] for _, picture in parts) + 3 * GAP
    heights = [LABEL + GAP + max(column[y][1].shape[0] for column in columns if y < len(column)) for y in range(half)]
    page = Image.new("RGB", (width * 2, sum(heights)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=12)
    for x, column in enumerate(columns):
        for y, (caption, picture) in enumerate(column):
            top = sum(heights[:y])
            draw.text((x * width + 2, top + 1), caption, "black", font)
            page.paste(Image.fromarray(picture), (x * width, top + LABEL))
    return page


def save(page: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        page.save(file, "PNG", optimize=True)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="the folder of a finished run; none: the gallery")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures", help="where the pictures go")
    arguments = parser.parse_args()
    try:
        if arguments.run is not None:
            save(features(arguments.run), arguments.out / "features.png")
            return
        for name, draw in {"shrunk": shrunk, "grown": grown, "pairs": pairs}.items():
            save(draw(), arguments.out / f"{name}.png")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
