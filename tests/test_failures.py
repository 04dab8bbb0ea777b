"""What the machine does to a run: each fault ends in one sentence, and in a checkpoint from which the run is exact."""

import errno
import io
import json
import multiprocessing
import os
import random
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from omegaconf import OmegaConf
from test_command_line import arguments
from test_training import assert_same, weights

from unet import load
from unet.errors import DataUnavailable, Interrupted, UserError
from unet.failures import classify_failure
from unet.io.atomic import remove_partials
from unet.runs.resume import resume_hint
from unet.training.callbacks.checkpoint import AtomicCheckpointIO, SaveOnError, StopOnSignal, best_and_last
from unet.training.callbacks.progress import Progress
from unet.training.train import train

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

    monkeypatch.setattr("unet.training.train.Progress", type("Happening", (Progress,), {hook: look}))


def exhaust(*_: object) -> Any:
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
        config = composed("num_logged_images=0", "feature_maps=0", *overrides)
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


def test_a_signal_in_a_validation_breaks_it_off_and_it_comes_again(composed, tmp_path, monkeypatch):
    config = composed("early_stopping=1", "num_logged_images=0", "feature_maps=0")
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        at(patch, "on_validation_batch_start", 4, lambda task: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted) as stopped:
            train(config, tmp_path / "parted")
    config.ckpt_path = str(stopped.value.checkpoint)
    train(config, tmp_path / "parted")
    for name in ("last", "best"):  # the first epoch is the best
        assert_same(weights(tmp_path / "whole", name), weights(tmp_path / "parted", name))


def test_an_error_in_the_final_evaluation_leaves_the_last_checkpoint_as_it_was(composed, tmp_path, monkeypatch):
    """The best weights, of the third of four epochs, are in place by then."""
    config = composed(
        "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=3", "num_logged_images=0", "feature_maps=0"
    )
    train(config, tmp_path / "whole")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("unet.task.module.SegmentationTask.test_step", fail)
    with pytest.raises(OSError, match="Input/output"):
        train(config, tmp_path / "parted")
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parted"))


def test_a_run_whose_folder_was_moved_keeps_its_best(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    state = {
        "dirpath": str(before),
        "best_model_score": torch.tensor(0.8),
        "best_model_path": str(before / "best.ckpt"),
        "best_k_models": {str(before / "best.ckpt"): torch.tensor(0.8)},
        "kth_best_model_path": str(before / "best.ckpt"),
        "kth_value": torch.tensor(0.8),
        "last_model_path": "",
    }
    best, _ = best_and_last(after, "val/miou")
    with pytest.warns(UserWarning, match="dirpath has changed"):
        best.load_state_dict(state)  # another's weights: nothing of the kind is here
    assert best.best_model_score is None
    after.mkdir()
    (after / "best.ckpt").touch()
    best.load_state_dict(state)
    assert best.best_model_score == 0.8 and list(best.best_k_models) == [str(after / "best.ckpt")]
    assert best.best_model_path == best.kth_best_model_path == str(after / "best.ckpt") and best.last_model_path == ""


def test_a_second_sigterm_changes_nothing_and_a_sigint_after_it_stops_at_once():
    stop = StopOnSignal(SaveOnError(Path("run")))
    stop.handle(signal.SIGTERM, None)
    stop.handle(signal.SIGTERM, None)
    assert stop.received == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        stop.handle(signal.SIGINT, None)


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


class OutOfMemoryError(RuntimeError):
    """As torch's of that name, which only a GPU raises."""


CUDA = OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB ...")
TORCH = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you ..."
)
KILLED = "DataLoader worker (pid 7) is killed by signal: {}."


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (OSError(errno.ENOSPC, "No space left", "run/last.ckpt"), ["run/last.ckpt: the disk is full; free some space"]),
        (OSError(errno.ENOSPC, "No space left"), ["run: the disk is full"]),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "run/a"), ["run/a: Disk quota exceeded"]),
        (PermissionError(errno.EACCES, "Permission denied", "/root/a"), ["/root/a: Permission denied"]),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), ["memory ran out in training", "data.batch_size="]),
        (RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0"), ["run: cannot be written"]),
        (RuntimeError(KILLED.format("Killed")), ["a loader process was killed (Killed)", "data.num_workers=0"]),
        (RuntimeError(KILLED.format("Bus error")), ["shared memory", "data.num_workers=0"]),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), ["a loader process was ended"]),
        (CUDA, ["memory ran out in training (CUDA out of memory)", "batch_size=2 trainer.accumulate_grad_batches=2"]),
        (TORCH, ["(DefaultCPUAllocator: can't allocate memory", "trainer.accumulate_grad_batches=2"]),
        (RuntimeError("could not create a primitive"), ["(could not create a primitive)", "data.batch_size=2"]),
        (MemoryError("Unable to allocate 8 PiB"), ["(Unable to allocate 8 PiB)", "data.batch_size=2"]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_each_fault_is_said_in_one_sentence(composed, error, parts):
    found = classify_failure(raised(error), composed("data.batch_size=4"), Path("run"))
    assert found is not None and "\n" not in found.message and found.overrides == ()
    assert [part for part in parts if part not in found.message] == [], found.message
    assert classify_failure(raised(RuntimeError("finalising"), error), composed(), Path("run")) is not None, (
        "what it came from"
    )


def test_what_is_no_fault_of_the_machine_is_left_alone():
    assert classify_failure(raised(RuntimeError("shapes differ"))) is None
    assert classify_failure(raised(RuntimeError("could not create a primitive descriptor for a matmul"))) is None
    assert classify_failure(raised(UserError("said already"), OSError(errno.ENOSPC, "full"))) is None


@pytest.mark.parametrize(("batch", "steps", "halved"), [(8, 1, (4, 2)), (9, 2, (3, 6)), (7, 1, (1, 7))])
def test_a_smaller_batch_leaves_every_step_as_many_samples(composed, batch, steps, halved):
    config = composed(f"data.batch_size={batch}", f"trainer.accumulate_grad_batches={steps}")
    found = classify_failure(raised(CUDA), config)
    assert found is not None and found.overrides == ()
    assert f"data.batch_size={halved[0]} trainer.accumulate_grad_batches={halved[1]} needs" in found.message
    assert halved[0] * halved[1] == batch * steps


def test_of_one_sample_a_batch_there_is_no_half(composed):
    found = classify_failure(raised(CUDA), composed("data.batch_size=1"))
    assert found is not None and "smaller crops" in found.message and "accumulate" not in found.message


@pytest.mark.parametrize(
    ("overrides", "shape", "needed"),
    [
        (["data.eval_batch_size=2"], (2, 1, 40, 48), "data.eval_batch_size=1"),
        (["data.eval_batch_size=1"], (1, 1, 40, 48), "data.eval_tile=[20,24]"),
        (["data.eval_batch_size=1", "data.eval_tile=[32,64]"], (1, 1, 40, 48), "data.eval_tile=[16,24]"),
        (["data.eval_batch_size=1"], (1, 3, 33), "data.eval_tile=[16]"),
        (["data.eval_batch_size=1", "data.eval_tile=[16,64,64]"], (1, 1, 96, 96, 96), "data.eval_tile=[8,32,32]"),
    ],
)
def test_the_advice_for_an_evaluation_is_a_smaller_batch_or_tile(composed, overrides, shape, needed):
    def predict(image: torch.Tensor) -> None:
        raise CUDA

    with pytest.raises(OutOfMemoryError) as error:
        predict(torch.empty(shape))
    found = classify_failure(error.value, composed(*overrides))
    assert found is not None and found.overrides == (needed,) and f"; {needed} needs less" in found.message


def test_the_tile_of_a_real_evaluation_is_found(composed, tmp_path, monkeypatch):
    config = composed("trainer.max_epochs=1", "data.eval_batch_size=1", "data.eval_tile=[32,32]", "num_logged_images=0")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return exhaust() if self.trainer.validating else self.net(self.normalize(image))

    monkeypatch.setattr("unet.task.module.SegmentationTask.forward", forward)
    with pytest.raises(RuntimeError, match="can't allocate memory") as error:
        train(config, tmp_path)
    found = classify_failure(error.value, config)
    assert found is not None and found.overrides == ("data.eval_tile=[16,16]",)


def test_the_command_that_resumes_changes_no_run_that_is_named_by_its_configuration(composed, tmp_path, monkeypatch):
    hydra = OmegaConf.create({"overrides": {"hydra": [], "task": ["seed=1"]}})
    monkeypatch.setattr("unet.runs.resume.HydraConfig.get", lambda: hydra)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    change = "data.eval_batch_size=1"
    assert change in resume_hint(run, composed(), ["seed=1"], [change])
    assert change not in resume_hint(run, composed("resume=auto"), ["seed=1", "resume=auto"], [change])
    (run.parent / "sweep.json").touch()
    assert change not in resume_hint(run, composed(), ["seed=1"], [change])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_drive_that_is_lost_in_an_epoch_is_named_and_the_training_saved(
    composed, stack, tmp_path, monkeypatch, workers
):
    copy = Path(shutil.copytree(stack, tmp_path / "drive"))
    config = composed(f"data.root={copy}", "data.cache_gb=0", f"data.num_workers={workers}", "num_logged_images=0")
    config.feature_maps = 0
    at(monkeypatch, "on_train_batch_start", 5, lambda task: shutil.rmtree(copy / "image"))
    with pytest.raises(DataUnavailable) as error:
        train(config, tmp_path / "run")
    found = classify_failure(error.value, config)
    assert found is not None and "\n" not in found.message
    assert str(copy / "image") in found.message and "no such file" in found.message
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 5 <= saved < 12


def test_a_disk_that_fills_up_leaves_the_checkpoint_before_and_no_rubbish(tmp_path):
    path = tmp_path / "last.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"step": torch.tensor(1)}, path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    for size in (1, 10_000_000):
        partial.symlink_to("/dev/full")  # every write to it finds the disk full
        with pytest.raises(OSError) as error:
            writer.save_checkpoint({"step": torch.zeros(size)}, path)
        found = classify_failure(error.value, folder=tmp_path)
        assert found is not None and found.message == f"{path}: the disk is full; free some space"
    assert torch.load(path, weights_only=True)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_a_kill_left_half_written_is_swept_up(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/.last.ckpt.7.partial", ".metrics.json.7.partial", "checkpoints/last.ckpt", ".lock"):
        (tmp_path / name).touch()
    remove_partials(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [".lock", "last.ckpt"]


CHECKPOINTS_WRITTEN = 6
"""At least as many does the training write: the last of each of its four epochs, and the best."""


def die_writing(number: int, fraction: float) -> None:
    """End this process by SIGKILL once a fraction of its ``number``-th checkpoint is written."""
    save, left = torch.save, [number]

    def dying(checkpoint: Any, file: Any) -> None:
        left[0] -= 1
        if left[0]:
            return save(checkpoint, file)
        buffer = io.BytesIO()
        save(checkpoint, buffer)
        file.write(buffer.getbuffer()[: round(fraction * buffer.tell())])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = dying


def train_and_die(words: list[str], cwd: Path, number: int, fraction: float) -> None:
    """Run ``train.py`` in this process, which is a new one, until it is in the middle of a checkpoint."""
    os.chdir(cwd)
    if number:
        die_writing(number, fraction)
    multiprocessing.set_start_method(None, force=True)  # loader processes start as they do elsewhere
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_training_killed_at_random_moments_ends_as_if_it_had_not_been(stack, tmp_path, seed):
    """Killed in the middle of a checkpoint and after a random time; every checkpoint loads after each."""
    rng = random.Random(seed)
    drawn = [
        "trainer.max_epochs=4",
        "num_logged_images=0",
        "feature_maps=0",
        "resume=auto",
        f"data.num_workers={seed % 2}",
    ]
    command = arguments(stack, *drawn)

    def run(folder: str, number: int = 0, seconds: float | None = None) -> int | None:
        words = [*command, f"hydra.run.dir={folder}"]
        process = processes.CONTEXT.Process(target=train_and_die, args=(words, tmp_path, number, rng.random()))
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
        process.join()
        for path in (tmp_path / folder).glob("checkpoints/*.ckpt"):
            load(path)
        return process.exitcode

    begin = time.perf_counter()
    assert run("whole") == 0
    lasted = time.perf_counter() - begin
    assert run("killed", number=rng.randint(1, CHECKPOINTS_WRITTEN)) == -signal.SIGKILL
    run("killed", seconds=rng.uniform(0, lasted))
    assert run("killed") == 0
    for name in ("last", "best"):
        assert_same(weights(tmp_path / "whole", name), weights(tmp_path / "killed", name))
    whole, killed = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "killed"))
    assert {key: killed[key] for key in whole if key.startswith(("test/", "best/"))} == {
        key: value for key, value in whole.items() if key.startswith(("test/", "best/"))
    }
