"""Export a checkpoint as a folder that runs without this project, checked against the network it came from."""

import shlex
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unet.command import as_path, hydra_script, require_keys


@hydra_script("export")
def main(config: DictConfig) -> None:
    """Write the bundle and print what was checked."""
    require_keys(config, ["ckpt"], "export")

    from unet.export.bundle import BUNDLE, EXAMPLE, Wanted, export

    values: Any = config["values"]
    values = OmegaConf.to_container(values) if OmegaConf.is_config(values) else values
    wanted = Wanted(
        format=config.format,
        labels=config.labels,
        variant=config.variant,
        calibration=as_path(config.calibration),
        values=values,
        agreement=config.agreement,
        dtype=config.dtype,
    )
    folder, said = export(Path(str(config.ckpt)).expanduser(), as_path(config.output), wanted)
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
        print("Warning: evaluation resizes or pads first, which the model leaves to you (input.eval_transforms)")
    command = shlex.join(["python", str(folder / EXAMPLE), "IMAGE", "LABELS.png"])
    print(f"try it: {command}; what it takes and gives: {folder / BUNDLE}")


if __name__ == "__main__":
    main()
