"""Export a checkpoint as a bundle that runs without this project, checked against the trained network.

    python scripts/export.py ckpt=outputs/RUN/checkpoints/best.ckpt
    python scripts/export.py ckpt=outputs/RUN/checkpoints/best.ckpt format=pt2 labels=true output=bundle
    python scripts/export.py ckpt=outputs/RUN/checkpoints/best.ckpt variant=int8 calibration=my_data

The folder holds the model, with normalisation inside and free batch and size; bundle.json, which describes input and
output; and run.py, an example. See docs/export.md.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a clone, uninstalled

from omegaconf import DictConfig, OmegaConf

from unet.command import script, verbatim
from unet.errors import UserError


@script("export")
def main(config: DictConfig) -> None:
    if config.ckpt is None:
        raise UserError("ckpt: is required; see python scripts/export.py --help")

    from unet.export.bundle import BUNDLE, EXAMPLE, ExportOptions, export

    values: Any = config["values"]
    values = OmegaConf.to_container(values) if OmegaConf.is_config(values) else values
    options = ExportOptions(
        format=config.format,
        labels=config.labels,
        variant=config.variant,
        calibration=path_of(config.calibration),
        values=values,
        agreement=config.agreement,
        dtype=config.dtype,
    )
    folder, bundle = export(Path(config.ckpt).expanduser(), path_of(config.output), options)
    checks, tiling, accuracy = (
        bundle["checked_against_torch"],
        bundle["tiling_error"],
        bundle["variant"]["against_float32"],
    )
    difference = checks["largest_difference"]
    model = bundle["model"]
    print(f"{folder / model['file']}: {model['bytes'] / 2**20:.1f} MiB, sha256 {model['sha256']}")
    print(
        f"float32 checked against torch at {len(checks['sizes'])} sizes, one image and two: "
        + ("" if difference is None else f"probabilities differ by at most {difference:.1e}, ")
        + f"{checks['labels_differing_at_near_ties']} of {checks['labels']:,} labels differ (near ties)"
    )
    if accuracy is not None:
        scores = "".join(f", {name} {value:.4f}" for name, value in accuracy.items() if name.startswith("miou"))
        agreement = f"{accuracy['label_agreement']:.2%} of labels as in float32"
        print(f"{options.variant}: {agreement} on {accuracy['images']} images it was not calibrated on{scores}")
    print(
        f"tiles of {'x'.join(map(str, bundle['tiles']['tile']))}: {tiling['label_agreement']:.2%} of labels as untiled"
    )
    if bundle["input"]["eval_transforms"]:
        print("Warning: the evaluation resizes or pads first; the model does not (input.eval_transforms)")
    command = shlex.join(["python", str(folder / EXAMPLE), "IMAGE", "LABELS.png"])
    print(f"try it: {command}; input and output are described in {folder / BUNDLE}")


def path_of(value: str | None) -> Path | None:
    return None if value is None else Path(value).expanduser()


if __name__ == "__main__":
    sys.argv[1:] = verbatim(sys.argv[1:], ("ckpt", "output", "calibration"))
    main()
