"""What the machine does to a run: each fault ends in one sentence, and in a checkpoint from which the run is exact."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_training import assert_same, weights

from unet.callbacks.progress import Progress
from unet.training import train

pytestmark = pytest.mark.filterwarnings(
    "ignore:the bottleneck is:UserWarning",
    "ignore:.*torch.jit.*:DeprecationWarning",
    "ignore:.*tree.*:FutureWarning",
)


def at(monkeypatch: pytest.MonkeyPatch, hook: str, step: int, happen: Callable[..., None]) -> None:
    """Call ``happen`` once, with the task, in a hook of Lightning's when that many steps are done."""
    left = [True]

    def look(self, trainer, pl_module, *args) -> None:
        getattr(Progress, hook)(self, trainer, pl_module, *args)
        if left and trainer.global_step == step and not trainer.sanity_checking:
            left.clear()
            happen(pl_module)

    monkeypatch.setattr("unet.training.Progress", type("Happening", (Progress,), {hook: look}))


def exhaust(*_: object) -> None:
    torch.empty(2**50, dtype=torch.uint8)  # more than an address space holds


def in_forward(task) -> None:
    task.net.head.register_forward_hook(exhaust)  # when every running statistic of the batch is already updated


def in_backward(task) -> None:
    task.net.head.register_full_backward_hook(exhaust)


def in_optimizer(task) -> None:
    task.trainer.optimizers[0].register_step_post_hook(exhaust)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[tuple[str, ...], tuple[Path, dict]]:
    """Folder and scores of runs that nothing stopped, by their overrides."""
    return {}


@pytest.fixture
def ended(composed, tmp_path, tmp_path_factory, monkeypatch, undisturbed):
    """A function that lets a fault happen, goes on, and compares with the undisturbed run; returns the saved step."""

    def end_and_go_on(hook: str, step: int, happen: Callable[..., None], *overrides: str) -> int:
        config = composed("pictures=0", "feature_maps=0", *overrides)
        if overrides not in undisturbed:
            folder = tmp_path_factory.mktemp("whole")
            undisturbed[overrides] = folder, train(config, folder)
        whole, scores = undisturbed[overrides]
        with monkeypatch.context() as patch:
            at(patch, hook, step, happen)
            with pytest.raises(RuntimeError, match="can't allocate memory"):
                train(config, tmp_path)
        last = tmp_path / "checkpoints" / "last.ckpt"
        saved = torch.load(last, weights_only=True)["global_step"]
        config.ckpt_path = str(last)
        resumed = train(config, tmp_path)
        assert_same(weights(whole), weights(tmp_path))
        assert_same(weights(whole, "best"), weights(tmp_path, "best"))
        kept = [name for name in scores if name.startswith(("test/", "best/"))]
        assert {name: resumed[name] for name in kept} == {name: scores[name] for name in kept}
        return saved

    return end_and_go_on


@pytest.mark.parametrize(
    ("hook", "step", "happen", "saved"),
    [
        ("on_train_batch_start", 6, exhaust, 6),  # as while a batch is fetched
        ("on_train_batch_start", 6, in_forward, 6),
        ("on_train_batch_start", 6, in_backward, 6),
        ("on_train_batch_start", 6, in_optimizer, 4),  # half updated: the last epoch's
        ("on_validation_batch_start", 8, exhaust, 8),
        ("on_validation_batch_start", 12, exhaust, 12),  # all is trained but not validated
    ],
)
def test_an_error_leaves_the_last_whole_step_from_which_the_run_is_exact(ended, hook, step, happen, saved):
    assert ended(hook, step, happen) == saved


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "step", "happen"),
    [("on_train_batch_start", 3, in_forward), ("on_validation_batch_start", 4, exhaust)],
)
@pytest.mark.parametrize("override", ["ema=0.9", "trainer.accumulate_grad_batches=2", "early_stopping=1"])
def test_so_it_is_with_all_that_could_disturb_it(ended, hook, step, happen, override):
    step = 2 if "accumulate" in override and step == 4 else step
    assert ended(hook, step, happen, override) == step
