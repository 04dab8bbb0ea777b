"""Score a trained network again, with the metrics and diagnostics of its training, on any split of any data."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from unet.runs.cli import as_path, check_single_values, hydra_script, require_keys

RUN_PREFIXES = ("data=", "data.", "trainer.")
"""How those arguments begin that change the run's config; this command's own are Hydra's to check."""


def main() -> None:
    """Score the checkpoint's network, with what the command line changes in the config of its run."""
    changes = [argument for argument in sys.argv[1:] if argument.startswith(RUN_PREFIXES)]
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument not in changes]

    @hydra_script("evaluate")
    def evaluate(config: DictConfig) -> None:
        require_keys(config, ["ckpt"], "evaluate")
        check_single_values(changes)

        from unet.training.config_limits import SWITCH, check_values
        from unet.training.console import print_diagnostics, print_scores
        from unet.training.evaluate import evaluate_checkpoint

        check_values(config, {"diagnostics": SWITCH})
        ckpt, output = Path(str(config.ckpt)).expanduser(), as_path(config.output)
        result = evaluate_checkpoint(ckpt, changes, config.split, output, config.diagnostics)
        epoch = result.metrics.get("checkpoint/epoch")
        print_scores(result.metrics, result.split, result.classes, f"{ckpt}" + (f", epoch {epoch}" if epoch else ""))
        if config.diagnostics:
            print_diagnostics(result.diagnostics)
        if output is not None:
            print(f"results in {output}")

    evaluate()


if __name__ == "__main__":
    main()
