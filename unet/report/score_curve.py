"""The validation scores of a run against the seconds of its training."""

from dataclasses import dataclass
from pathlib import Path

from unet.errors import UserError

SECONDS, SCORE = "time/train_seconds", "val/miou"


@dataclass(frozen=True)
class Validation:
    """The optimizer steps and the seconds of training, with validation, before a validation, and its score."""

    step: int
    seconds: float
    score: float


def find_runs(folder: Path) -> list[Path]:
    """Return the folder if it is that of a run, or else the runs in it. Raises UserError if there are none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected the folder of a run, or of a sweep")
    runs = [path for path in (folder, *sorted(folder.iterdir())) if any(path.glob("events.out.tfevents.*"))]
    if not runs:
        raise UserError(f"{folder}: no event files in it; expected the folder of a run, or of a sweep")
    return runs[:1] if runs[0] == folder else runs


def read_curve(run: Path) -> list[Validation]:
    """Return the validations of a run, from its event files. Raises UserError if there are none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    names = events.Tags()["scalars"]
    if not {SECONDS, SCORE} <= set(names):
        raise UserError(f"{run}: its event files have no {SECONDS} and {SCORE}; the run has no validation, or is older")
    seconds = {event.step: event.value for event in events.Scalars(SECONDS)}
    # TensorBoard has the index of the last step.
    return [Validation(e.step + 1, seconds[e.step], e.value) for e in events.Scalars(SCORE) if e.step in seconds]


def format_curve(run: Path, curve: list[Validation], target: float | None) -> str:
    """Return the curve as text, and when it reaches ``target`` first."""
    lines = [str(run), *(f"  {v.seconds:8.1f} s  step {v.step:6d}  {SCORE} {v.score:.4f}" for v in curve)]
    if target is not None:
        reached = next((v for v in curve if v.score >= target), None)
        when = f"after {reached.seconds:.1f} s, {reached.step} steps" if reached else "never"
        lines.append(f"  {target:g} is reached {when}; best {max(v.score for v in curve):.4f}")
    return "\n".join(lines)
