"""Export a checkpoint as a folder that runs without this project and is checked against the network."""

import shlex
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unet.errors import UserError
from unet.io.default_weights import DEFAULT_WEIGHTS, checkpoint_path
from unet.runs.cli import as_path, hydra_script, require_keys


@hydra_script("export")
def main(config: DictConfig) -> None:
    """Write the bundle and print the results of its checks."""
    require_keys(config, ["ckpt"], "export")
    if OmegaConf.is_list(config.ckpt):
        raise UserError(
            f"ckpt: expected one checkpoint, found {', '.join(config.ckpt)}; export each into its own folder"
        )

    path, output = checkpoint_path(str(config.ckpt)), as_path(config.output)
    if path == DEFAULT_WEIGHTS and output is None:
        raise UserError("output: required with ckpt=default, which is part of the package; add output=FOLDER")

    from unet.export.bundle import BUNDLE, EXAMPLE, ExportOptions, export

    values: Any = OmegaConf.to_container(config)
    values["calibration"] = as_path(config.calibration)
    options = ExportOptions(**{field.name: values[field.name] for field in fields(ExportOptions)})
    folder, bundle = export(path, output, options)
    checks, tiling = bundle["checked_against_torch"], bundle["tiling_error"]
    accuracy, difference, model = bundle["variant"]["against_float32"], checks["largest_difference"], bundle["model"]
    print(f"{folder / model['file']}: {model['bytes'] / 2**20:.1f} MiB, sha256 {model['sha256']}")
    print(
        f"float32 checked against torch at {count_sizes(checks)}: "
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
    if options.size is not None:
        print(f"fixed size: one image of {'x'.join(map(str, options.size))} at a time")
    command = shlex.join(["python", str(folder / EXAMPLE), "IMAGE", "LABELS.png"])
    print(f"try it: {command}; input and output are described in {folder / BUNDLE}")


def count_sizes(checks: dict[str, Any]) -> str:
    """Return at how many sizes and batch sizes a network was checked."""
    sizes, batches = len(checks["sizes"]), len(checks["batches"])
    return f"{sizes} sizes, one image and two" if batches > 1 else "its size"
