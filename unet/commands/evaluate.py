"""Evaluate a trained network with the metrics and diagnostics of its training, on any split of any data."""

import sys

from omegaconf import DictConfig

from unet.runs.cli import as_checkpoints, as_path, check_single_values, hydra_script, require_keys
from unet.runs.run_names import quote_path, quote_words


def main() -> None:
    """Evaluate a checkpoint on the data of its run, which the command line may change."""
    # These arguments change the run's config; Hydra checks the others.
    args = [quote_words(quote_path(arg)) for arg in sys.argv[1:]]
    changes = [arg for arg in args if arg.startswith(("data=", "data.", "trainer."))]
    sys.argv[1:] = [arg for arg in args if arg not in changes]

    @hydra_script("evaluate")
    def evaluate(config: DictConfig) -> None:
        """Print the scores and diagnostics; write them into a folder where one is named."""
        require_keys(config, ["ckpt"], "evaluate")
        check_single_values(changes)

        from unet.training.config_limits import BOOLEAN, check_values
        from unet.training.console import print_diagnostics, print_scores
        from unet.training.evaluate import evaluate_checkpoint

        check_values(config, {"diagnostics": BOOLEAN})
        ckpts, output = as_checkpoints(config.ckpt), as_path(config.output)
        result = evaluate_checkpoint(ckpts, changes, config.split, output, config.diagnostics)
        for message in result.doubts:
            print(f"warning: {message}", file=sys.stderr)
        epoch, names = result.metrics.get("checkpoint/epoch"), result.metrics["checkpoint"]
        print_scores(result.metrics, result.split, result.classes, names + (f", epoch {epoch}" if epoch else ""))
        if result.warning:
            print(f"warning: {result.warning}")
        if config.diagnostics:
            print_diagnostics(result.diagnostics)
        if output is not None:
            print(f"results in {output}")

    evaluate()
