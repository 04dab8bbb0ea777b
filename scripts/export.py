"""A checkpoint as a bundle that runs without this project, checked against the network it came from.

    python scripts/export.py ckpt=outputs/RUN/checkpoints/best.ckpt
    python scripts/export.py ckpt=outputs/RUN/checkpoints/best.ckpt format=pt2 labels=true output=bundle
    python scripts/export.py ckpt=outputs/RUN/checkpoints/best.ckpt variant=int8 calibration=my_data

The folder holds the model, with normalisation inside and free batch and size; bundle.json, which says what it takes and
gives; and run.py, an example. docs/export.md has the rest.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a clone, uninstalled

from omegaconf import DictConfig, OmegaConf

from unet.command import hydra_script
from unet.errors import UserError


@hydra_script("export")
def main(config: DictConfig) -> None:
    if config.ckpt is None:
        raise UserError("ckpt: is required; see python scripts/export.py --help")

    from unet.export.bundle import BUNDLE, EXAMPLE, Wanted, export

    values: Any = config["values"]
    values = OmegaConf.to_container(values) if OmegaConf.is_config(values) else values
    wanted = Wanted(
        format=config.format,
        labels=config.labels,
        variant=config.variant,
        calibration=path_of(config.calibration),
        values=values,
        agreement=config.agreement,
        dtype=config.dtype,
    )
    folder, said = export(Path(str(config.ckpt)).expanduser(), path_of(config.output), wanted)
    checked, seam, accuracy = said["checked_against_torch"], said["seam"], said["variant"]["against_float32"]
    apart = checked["largest_difference"]
    print(
        f"{folder / said['model']['file']}: {said['model']['bytes'] / 2**20:.1f} MiB, sha256 {said['model']['sha256']}"
    )
    print(
        f"in float32 as torch at {len(checked['sizes'])} sizes, one image and two: "
        + ("" if apart is None else f"probabilities at most {apart:.1e} apart, ")
        + f"{checked['labels_differing_at_near_ties']} of {checked['labels']:,} labels differ (near ties)"
    )
    if accuracy is not None:
        scores = "".join(f", {name} {value:.4f}" for name, value in accuracy.items() if name.startswith("miou"))
        agreeing = f"{accuracy['label_agreement']:.2%} of labels as float32"
        print(f"{wanted.variant}: {agreeing} on {accuracy['images']} images it was not calibrated on{scores}")
    print(f"tiles of {'x'.join(map(str, said['tiles']['tile']))}: {seam['score']:.2%} of labels as in one piece")
    if said["input"]["eval_transforms"]:
        print("mind: evaluation resizes or pads first, which the model leaves to you (input.eval_transforms)")
    command = shlex.join(["python", str(folder / EXAMPLE), "IMAGE", "LABELS.png"])
    print(f"try it: {command}; what it takes and gives: {folder / BUNDLE}")


def path_of(value: Any) -> Path | None:
    return None if value is None else Path(str(value)).expanduser()


if __name__ == "__main__":
    main()
