"""What TensorBoard's HParams tab shows of a sweep: the keys that varied and the final scores, nothing else."""

from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from unet.report.arms import format_value
from unet.report.measures import metric_key
from unet.report.runs import Run
from unet.report.study import SweepAnalysis


def write_hparams_summary(analysis: SweepAnalysis) -> None:
    """Write the columns of the HParams tab into the sweep's folder, in place of earlier ones.

    Every run says all of its settings; TensorBoard shows what the first description it finds lists, and the folder
    itself comes before the runs in it.
    """
    folder = analysis.sweep.folder
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    done = [run for run in analysis.sweep.runs if run.state == "done"]
    if not done:
        return
    values = {key: [run.config.get(key) for run in done] for key in (*analysis.factors, "seed")}
    numeric = {key: all(isinstance(value, int | float) for value in known) for key, known in values.items()}
    settings = {key: known[0] if numeric[key] else format_value(known[0]) for key, known in values.items()}
    experiment, _, _ = hparams(settings, dict.fromkeys(final_metric_tags(analysis, done[0]), 0.0))
    with SummaryWriter(str(folder)) as writer:
        assert writer.file_writer is not None
        writer.file_writer.add_summary(experiment)


def final_metric_tags(analysis: SweepAnalysis, run: Run) -> list[str]:
    """What a run calls its final numbers there, the compared one first."""
    numbers = [key for key, value in run.metrics.items() if isinstance(value, int | float)]
    first = metric_key(analysis.metric, analysis.split)
    ordered = sorted(numbers, key=lambda key: (key != first, not key.startswith(f"{analysis.split}/")))
    return [
        f"final/{key.split('/', 1)[1]}" for key in ordered if key.startswith((f"{analysis.split}/", "time/", "model/"))
    ]
