"""Score a per-pixel colour histogram classifier, see :mod:`unet.diagnostics.histogram_baseline`."""

from typing import Any

from omegaconf import DictConfig

from unet.runs.cli import hydra_script


@hydra_script("baseline")
def main(config: DictConfig) -> None:
    """Print the scores of the classifier."""
    result = score(config)
    print(f"{result['from']} alone, data={config.data.name}, {result['split']} split")
    for name, value in result["scores"].items():
        print(f"  {name:20} {value:.4f}")


def score(config: DictConfig) -> dict[str, Any]:
    """Return the scores of the classifier on the evaluation split of a config's data, from all training images."""
    from unet.data_check.advice import scan_data
    from unet.diagnostics.histogram_baseline import baseline_scores, histogram_kind
    from unet.training.build import build_data
    from unet.training.config_limits import validate_config

    validate_config(config)
    data = build_data(config)
    scan_data(data, config)
    return {
        "from": histogram_kind(data.channels),
        "split": data.eval_split,
        "scores": baseline_scores(data, limit=False),
    }
