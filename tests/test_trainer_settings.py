"""Settings of Lightning's trainer: each works, or is refused in one line before data is read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import config
from folders import sentence
from hydra.errors import ConfigCompositionException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from unet.errors import UserError
from unet.runs.error_messages import format_error
from unet.training.build import check_trainer
from unet.training.config_limits import validate_config
from unet.training.train import train

pytestmark = pytest.mark.filterwarnings(
    "ignore:the bottleneck is:UserWarning", "ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*tree.*:FutureWarning"
)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "trainer.precision=16-true",
            ["trainer.precision: expected one of auto", "16-mixed", "half precision cannot be trained"],
        ),
        ("trainer.precision=bf16-true", ["trainer.precision", "bf16-mixed"]),
        ("trainer.precision=8", ["trainer.precision: expected one of auto, 32-true", "found 8"]),
        ("trainer.enable_checkpointing=false", ["trainer.enable_checkpointing", "evaluated with its checkpoints"]),
        ("trainer.barebones=true", ["trainer.barebones", "callbacks, checkpoints and a logger"]),
        ("trainer.max_steps=0", ["trainer.max_steps: expected -1", "untrained network", "found 0"]),
        ("trainer.max_epochs=0", ["trainer.max_epochs: expected null or -1", "found 0"]),
        ("trainer.accelerator=tpu", ["Lightning refuses the settings", "torch_xla"]),
        ("trainer.num_nodes=2", ["trainer.num_nodes=2", "torchrun or srun", "leave the key out"]),
        ("trainer.deterministic=foo", ["trainer.deterministic", "warn"]),
        ("trainer.gradient_clip_algorithm=foo", ["trainer.gradient_clip_algorithm", "norm, value"]),
        ("+trainer.logger=false", ["trainer.logger: cannot be changed", "set the key logger instead"]),
        ("trainer.callbacks=[x]", ["trainer.callbacks[0]: expected {_target_: a callback of Lightning}, found 'x'"]),
        ("trainer.callbacks=x", ["trainer.callbacks: expected null or a list", "found 'x'"]),
        ("trainer.callbacks=[{_target_: builtins.dict}]", ["trainer.callbacks[0]: expected", "found {'_target_'"]),
        ("trainer.callbacks=[{_target_: nowhere.Callback}]", ["trainer.callbacks[0]", "nowhere"]),
        ("trainer.profiler=foo", ["Lightning refuses the settings", "simple"]),
        ("trainer.plugins=[x]", ["Lightning refuses the settings"]),
        ("trainer.strategy=foo", ["Lightning refuses the settings"]),
        ("trainer.max_time=foo", ["Lightning refuses the settings"]),
        ("+trainer.foo=1", ["Lightning refuses the settings", "foo"]),
    ],
)
def test_a_setting_that_a_run_cannot_have_is_refused(override: str, words: list[str]):
    with pytest.raises(UserError) as error:
        composed = config("trainer.accelerator=cpu", override)
        validate_config(composed)
        check_trainer(composed)
    sentence(error, *words)


def test_messages_of_settings_that_lightning_refuses_later(composed: Any, tmp_path: Path):
    with pytest.raises(ConfigCompositionException) as unknown:
        config("trainer.logger=false")
    assert format_error(unknown.value).startswith("trainer.logger: cannot be changed, as a run has its own logger")
    for override in ("trainer.val_check_interval=100", "trainer.limit_val_batches=0.01"):
        with pytest.raises((MisconfigurationException, ValueError)) as error:
            train(composed(override), tmp_path / override)
        assert format_error(error.value).startswith("trainer: Lightning refuses the settings: ")


def test_overfit_batches_repeats_the_same_batch(composed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from unet.task.module import SegmentationTask

    means: list[float] = []
    step = SegmentationTask.training_step

    def record(self: SegmentationTask, batch: Any, batch_idx: int) -> Any:
        means.append(float(batch["image"].float().mean()))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "training_step", record)
    fixed = "data.train_transforms=[{_target_: albumentations.CenterCrop, height: 32, width: 32}]"
    metrics = train(composed("trainer.overfit_batches=1", "trainer.max_epochs=4", fixed), tmp_path / "run")
    assert len(means) == 4 and np.ptp(means) == 0 and metrics["steps"] == 4


def test_a_network_without_a_training_step_is_not_evaluated(composed: Any, tmp_path: Path):
    with pytest.raises(UserError, match="no training step was made"):
        train(composed("trainer.max_time=00:00:00:00"), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_an_evaluation_of_a_part_of_the_images_is_warned_of(composed: Any, tmp_path: Path, capsys: Any):
    metrics = train(composed("trainer.limit_test_batches=1"), tmp_path / "run")
    output = capsys.readouterr().out
    assert f"warning: only {metrics['test/images']} of " in output and "images of test were evaluated" in output


class CountSteps(Callback):
    """A callback of a user's: prints how many steps it saw, and after how many it stops the training."""

    def __init__(self, most: int):
        self.most, self.steps = most, 0

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        self.steps += 1
        trainer.should_stop = self.steps >= self.most

    def on_train_end(self, trainer: Any, *arguments: Any) -> None:
        print(f"{self.steps} steps seen")


def test_callbacks_of_the_user_s_are_called(composed: Any, tmp_path: Path, capsys):
    own = f"{{_target_: {__name__}.CountSteps, most: 2}}"
    metrics = train(composed("trainer.max_epochs=50", f"trainer.callbacks=[{own}]"), tmp_path)
    assert "2 steps seen" in capsys.readouterr().out and metrics["steps"] == 2


class KeepScores(Callback):
    """A callback of a user's whose state holds an object of NumPy."""

    def state_dict(self) -> dict[str, Any]:
        return {"best": np.float64(0.5)}


def test_a_callback_whose_state_could_not_be_read_is_refused_at_the_first_checkpoint(composed: Any, tmp_path: Path):
    with pytest.raises(UserError, match=r"trainer\.callbacks: the state of KeepScores holds other objects"):
        train(composed(f"trainer.callbacks=[{{_target_: {__name__}.KeepScores}}]"), tmp_path)


def test_options_of_callbacks_are_plain_values_and_two_equal_ones_are_refused():
    library = "lightning.pytorch.callbacks"
    accumulate = f"{{_target_: {library}.GradientAccumulationScheduler, scheduling: {{0: 2}}}}"
    check_trainer(config(f"trainer.callbacks=[{accumulate}]"))  # it refuses OmegaConf's mappings
    stop = f"{{_target_: {library}.EarlyStopping, monitor: val/miou}}"
    with pytest.raises(UserError, match="Lightning refuses the settings: Found more than one stateful callback"):
        check_trainer(config(f"trainer.callbacks=[{stop},{stop}]"))
