"""Score a trained network again, with the numbers and diagnostics of its training, on any split of any data.

    python scripts/evaluate.py ckpt=outputs/RUN/checkpoints/best.ckpt
    python scripts/evaluate.py ckpt=... split=val output=scores
    python scripts/evaluate.py ckpt=... data.root=elsewhere

The run's own config.yaml, two folders above the checkpoint, says the data; data=NAME takes another data set. --help
lists the keys. docs/predict.md has more.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a clone, uninstalled

from omegaconf import DictConfig

from unet.command import hydra_script
from unet.errors import UserError

OF_THE_RUN = ("data=", "data.", "trainer.")
"""How those arguments begin that change the run's config; this command's own are Hydra's to check."""


def main(changes: list[str]) -> None:
    @hydra_script("evaluate")
    def scored(config: DictConfig) -> None:
        if config.ckpt is None:
            raise UserError("ckpt: is required; see python scripts/evaluate.py --help")
        if not isinstance(config.diagnostics, bool):
            raise UserError(f"diagnostics: expected true or false, found {config.diagnostics!r}")

        from unet.evaluation import evaluate_checkpoint
        from unet.summary import print_diagnostics, print_scores

        ckpt = Path(str(config.ckpt)).expanduser()
        out = None if config.output is None else Path(str(config.output)).expanduser()
        found = evaluate_checkpoint(ckpt, changes, config.split, out, config.diagnostics)
        epoch = found.metrics.get("checkpoint/epoch")
        which = str(ckpt) if epoch is None else f"{ckpt}, epoch {epoch}"
        print_scores(found.metrics, found.split, found.classes, which)
        if config.diagnostics:
            print_diagnostics(found.diagnostics)
        if out is not None:
            print(f"results in {out}")

    scored()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    changes = [argument for argument in arguments if argument.startswith(OF_THE_RUN)]
    sys.argv[1:] = [argument for argument in arguments if argument not in changes]
    main(changes)
