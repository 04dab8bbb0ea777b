"""Write the columns of TensorBoard's HParams tab for a sweep: the keys that vary and the final metrics."""

from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from unet.io.config_keys import FOLD
from unet.report.analysis import SweepAnalysis
from unet.report.arms import format_value
from unet.report.metrics import metric_key
from unet.report.read_sweep import Run


def write_hparams_summary(analysis: SweepAnalysis) -> None:
    """Write the columns of the HParams tab into the sweep's folder, replacing earlier ones.

    Every run records all of its settings; TensorBoard shows the columns of the first description it finds, and the
    sweep's folder comes before the runs in it.
    """
    folder = analysis.sweep.folder
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    done = [run for run in analysis.sweep.runs if run.state == "done"]
    if not done:
        return
    settings = {}
    for key in (*analysis.factors, "seed", *([FOLD] if analysis.unit != "seed" else [])):
        values = [run.config.get(key) for run in done]
        numeric = all(isinstance(value, int | float) for value in values)
        settings[key] = values[0] if numeric else format_value(values[0])
    experiment, _, _ = hparams(settings, dict.fromkeys(final_metric_tags(analysis, done[0]), 0.0))
    with SummaryWriter(str(folder)) as writer:
        assert writer.file_writer is not None
        writer.file_writer.add_summary(experiment)


def final_metric_tags(analysis: SweepAnalysis, run: Run) -> list[str]:
    """Return the tags of a run's final metrics, the compared one first."""
    prefixes = (f"{analysis.split}/", "time/", "model/")
    compared = metric_key(analysis.metric, analysis.split)
    keys = [key for key, value in run.metrics.items() if isinstance(value, int | float) and key.startswith(prefixes)]
    keys.sort(key=lambda key: (key != compared, not key.startswith(prefixes[0])))
    return [f"final/{key.split('/', 1)[1]}" for key in keys]
