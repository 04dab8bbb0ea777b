"""Failures of the machine: each has an error message of one line and leaves a checkpoint that resumes exactly."""

import errno
import io
import itertools
import json
import multiprocessing
import os
import random
import re
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
from unet.data.module import TrackedDataLoader, shutdown_workers_on_exit
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


def at(monkeypatch: pytest.MonkeyPatch, hook: str, step: int, action: Callable[..., None]) -> None:
    """Call ``action`` once with the task, in a hook of Lightning after that many steps."""
    pending = [True]

    def run_hook(self, trainer, pl_module, *args) -> None:
        getattr(Progress, hook)(self, trainer, pl_module, *args)
        if pending and trainer.global_step == step and not trainer.sanity_checking:
            pending.clear()
            action(pl_module)

    monkeypatch.setattr("unet.training.train.Progress", type("ActingProgress", (Progress,), {hook: run_hook}))


def exhaust_memory(*_: object) -> Any:
    torch.empty(2**50, dtype=torch.uint8)  # more than an address space has


def in_forward(task) -> None:
    task.net.head.register_forward_hook(exhaust_memory)  # when all running statistics of the batch are updated


def in_backward(task) -> None:
    task.net.head.register_full_backward_hook(exhaust_memory)


def in_optimizer(task) -> None:
    task.trainer.optimizers[0].register_step_post_hook(exhaust_memory)


@pytest.fixture
def fail_and_resume(composed, uninterrupted, tmp_path, monkeypatch):
    """Return a function that fails a run, resumes it and compares it to an uninterrupted one; it returns the step."""

    def fail_and_resume(hook: str, step: int, action: Callable[..., None], *overrides: str) -> int:
        folder, metrics = uninterrupted(*overrides)
        config = composed(*overrides)
        with monkeypatch.context() as patch:
            at(patch, hook, step, action)
            with pytest.raises(RuntimeError, match="can't allocate memory"):
                train(config, tmp_path)
        last = tmp_path / "checkpoints" / "last.ckpt"
        saved = torch.load(last, weights_only=True)["global_step"]
        config.ckpt_path = str(last)
        assert final_metrics(train(config, tmp_path)) == final_metrics(metrics)
        for name in ("last", "best"):
            assert_same(weights(folder, name), weights(tmp_path, name))
        return saved

    return fail_and_resume


def final_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name.startswith(("test/", "best/"))}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "step", "action", "saved"),
    [
        ("on_train_batch_start", 6, exhaust_memory, 6),  # such as while a batch is loaded
        ("on_train_batch_start", 6, in_forward, 6),
        ("on_train_batch_start", 6, in_backward, 6),
        ("on_train_batch_start", 6, in_optimizer, 4),  # partly updated: the last epoch's
        ("on_validation_batch_start", 8, exhaust_memory, 8),
        ("on_validation_batch_start", 12, exhaust_memory, 12),  # trained and not validated
    ],
)
def test_an_error_saves_the_last_complete_step_which_resumes_exactly(fail_and_resume, hook, step, action, saved):
    assert fail_and_resume(hook, step, action) == saved


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "step", "action"),
    [("on_train_batch_start", 3, in_forward), ("on_validation_batch_start", 4, exhaust_memory)],
)
@pytest.mark.parametrize("override", ["ema=0.9", "trainer.accumulate_grad_batches=2", "early_stopping=1"])
def test_an_error_with_other_state_resumes_exactly_too(fail_and_resume, hook, step, action, override):
    step = 2 if "accumulate" in override and step == 4 else step
    assert fail_and_resume(hook, step, action, override) == step


def test_a_signal_in_a_validation_stops_it_and_it_is_repeated(composed, uninterrupted, tmp_path, monkeypatch):
    config, (folder, _) = composed("early_stopping=1"), uninterrupted("early_stopping=1")
    with monkeypatch.context() as patch:
        at(patch, "on_validation_batch_start", 4, lambda task: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted) as error:
            train(config, tmp_path / "resumed")
    config.ckpt_path = str(error.value.checkpoint)
    train(config, tmp_path / "resumed")
    for name in ("last", "best"):  # the first epoch is the best
        assert_same(weights(folder, name), weights(tmp_path / "resumed", name))


def test_an_error_in_the_final_evaluation_does_not_change_the_last_checkpoint(composed, tmp_path, monkeypatch):
    config = composed("trainer.max_epochs=4", "trainer.check_val_every_n_epoch=3")
    train(config, tmp_path / "uninterrupted")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("unet.task.module.SegmentationTask.test_step", fail)
    with pytest.raises(OSError, match="Input/output"):
        train(config, tmp_path / "resumed")
    assert_same(weights(tmp_path / "uninterrupted"), weights(tmp_path / "resumed"))


def test_a_run_in_a_moved_folder_has_its_best_checkpoint(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    state = {
        "dirpath": str(old),
        "best_model_score": torch.tensor(0.8),
        "best_model_path": str(old / "best.ckpt"),
        "best_k_models": {str(old / "best.ckpt"): torch.tensor(0.8)},
        "kth_best_model_path": str(old / "best.ckpt"),
        "kth_value": torch.tensor(0.8),
        "last_model_path": "",
    }
    best, _ = best_and_last(new, "val/miou")
    with pytest.warns(UserWarning, match="dirpath has changed"):
        best.load_state_dict(state)  # the file is missing
    assert best.best_model_score is None
    new.mkdir()
    (new / "best.ckpt").touch()
    best.load_state_dict(state)
    assert best.best_model_score == 0.8 and list(best.best_k_models) == [str(new / "best.ckpt")]
    assert best.best_model_path == best.kth_best_model_path == str(new / "best.ckpt") and best.last_model_path == ""


def test_a_second_sigterm_changes_nothing_and_a_sigint_after_it_stops_at_once():
    stop = StopOnSignal(SaveOnError(Path("run")))
    stop.handle(signal.SIGTERM, None)
    stop.handle(signal.SIGTERM, None)
    assert stop.received == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        stop.handle(signal.SIGINT, None)


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    with pytest.raises(type(error)) as caught:
        raise error from cause
    return caught.value


class OutOfMemoryError(RuntimeError):
    """As torch's of that name, which only a GPU raises."""


CUDA = OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB ...")
TORCH = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you ..."
)
KILLED = "DataLoader worker (pid 7) is killed by signal: {}."


@pytest.mark.parametrize(
    ("error", "texts"),
    [
        (OSError(errno.ENOSPC, "No space left", "run/last.ckpt"), ["run/last.ckpt: the disk is full; free some space"]),
        (OSError(errno.ENOSPC, "No space left"), ["run: the disk is full"]),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "run/a"), ["run/a: Disk quota exceeded"]),
        (PermissionError(errno.EACCES, "Permission denied", "/root/a"), ["/root/a: Permission denied"]),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), ["memory ran out in training", "data.batch_size="]),
        (RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0"), ["run: cannot be written"]),
        (RuntimeError(KILLED.format("Killed")), ["a loader process was killed (Killed)", "data.num_workers=0"]),
        (RuntimeError(KILLED.format("Bus error")), ["shared memory", "data.num_workers=0"]),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), ["a loader process ended"]),
        (CUDA, ["memory ran out in training (CUDA out of memory)", "batch_size=2 trainer.accumulate_grad_batches=2"]),
        (TORCH, ["(DefaultCPUAllocator: can't allocate memory", "trainer.accumulate_grad_batches=2"]),
        (RuntimeError("could not create a primitive"), ["(could not create a primitive)", "data.batch_size=2"]),
        (MemoryError("Unable to allocate 8 PiB"), ["(Unable to allocate 8 PiB)", "data.batch_size=2"]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_each_failure_has_a_message_of_one_line(composed, error, texts):
    config = composed("data.batch_size=4")
    failure = classify_failure(raised(error), config, Path("run"))
    assert failure is not None and "\n" not in failure.message and failure.overrides == ()
    assert [text for text in texts if text not in failure.message] == [], failure.message
    assert classify_failure(raised(RuntimeError("finalising"), error), config, Path("run")) is not None


def test_other_errors_are_not_failures_of_the_machine():
    assert classify_failure(raised(RuntimeError("shapes differ"))) is None
    assert classify_failure(raised(RuntimeError("could not create a primitive descriptor for a matmul"))) is None
    assert classify_failure(raised(UserError("bad input"), OSError(errno.ENOSPC, "full"))) is None


@pytest.mark.parametrize(
    ("batch", "steps", "advice"),
    [
        (8, 1, "data.batch_size=4 trainer.accumulate_grad_batches=2 needs"),
        (9, 2, "data.batch_size=3 trainer.accumulate_grad_batches=6 needs"),
        (7, 1, "data.batch_size=1 trainer.accumulate_grad_batches=7 needs"),
        (1, 1, "one image in a batch: start a new run with smaller crops"),
    ],
)
def test_the_advice_for_a_training_is_a_smaller_batch_with_as_many_images_in_a_step(composed, batch, steps, advice):
    config = composed(f"data.batch_size={batch}", f"trainer.accumulate_grad_batches={steps}")
    failure = classify_failure(raised(CUDA), config)
    assert failure is not None and failure.overrides == () and advice in failure.message


@pytest.mark.parametrize(
    ("overrides", "shape", "change"),
    [
        (["data.eval_batch_size=2"], (2, 1, 40, 48), "data.eval_batch_size=1"),
        (["data.eval_batch_size=1"], (1, 1, 40, 48), "data.eval_tile=[20,24]"),
        (["data.eval_batch_size=1", "data.eval_tile=[32,64]"], (1, 1, 40, 48), "data.eval_tile=[16,24]"),
        (["data.eval_batch_size=1"], (1, 3, 33), "data.eval_tile=[16]"),
        (["data.eval_batch_size=1", "data.eval_tile=[16,64,64]"], (1, 1, 96, 96, 96), "data.eval_tile=[8,32,32]"),
    ],
)
def test_the_advice_for_an_evaluation_is_a_smaller_batch_or_tile(composed, overrides, shape, change):
    def predict(image: torch.Tensor) -> None:
        raise CUDA

    with pytest.raises(OutOfMemoryError) as error:
        predict(torch.empty(shape))
    failure = classify_failure(error.value, composed(*overrides))
    assert failure is not None and failure.overrides == (change,) and f"; {change} needs less" in failure.message


def test_the_tile_of_a_real_evaluation_is_halved(composed, tmp_path, monkeypatch):
    config = composed("trainer.max_epochs=1", "data.eval_batch_size=1", "data.eval_tile=[32,32]")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return exhaust_memory() if self.trainer.validating else self.net(self.normalize(image))

    monkeypatch.setattr("unet.task.module.SegmentationTask.forward", forward)
    with pytest.raises(RuntimeError, match="can't allocate memory") as error:
        train(config, tmp_path)
    failure = classify_failure(error.value, config)
    assert failure is not None and failure.overrides == ("data.eval_tile=[16,16]",)


def test_the_command_to_resume_does_not_change_the_configuration_that_names_a_folder(composed, tmp_path, monkeypatch):
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
def test_a_file_lost_in_an_epoch_is_named_and_a_checkpoint_saved(composed, stack, tmp_path, monkeypatch, workers):
    copy = Path(shutil.copytree(stack, tmp_path / "data"))
    config = composed(f"data.root={copy}", "data.cache_gb=0", f"data.num_workers={workers}")
    at(monkeypatch, "on_train_batch_start", 5, lambda task: shutil.rmtree(copy / "image"))
    with pytest.raises(DataUnavailable) as error:
        train(config, tmp_path / "run")
    failure = classify_failure(error.value, config)
    pattern = re.escape(str(copy / "image")) + r".\d\.png: no such file \([^:]*\)"
    assert failure is not None and re.fullmatch(pattern, failure.message)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 5 <= saved < 12


def test_worker_processes_end_while_their_iterator_is_referenced():
    with shutdown_workers_on_exit():
        batches = iter(TrackedDataLoader([1, 2, 3], num_workers=1))
        assert next(batches) == 1 and multiprocessing.active_children()
    assert not multiprocessing.active_children()


def test_a_full_disk_leaves_the_previous_checkpoint_and_no_partial_file(tmp_path):
    path = tmp_path / "last.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"step": torch.tensor(1)}, path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    for size in (1, 10_000_000):
        partial.symlink_to("/dev/full")  # every write fails as on a full disk
        with pytest.raises(OSError) as error:
            writer.save_checkpoint({"step": torch.zeros(size)}, path)
        failure = classify_failure(error.value, folder=tmp_path)
        assert failure is not None and failure.message == f"{path}: the disk is full; free some space"
    assert torch.load(path, weights_only=True)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_partial_files_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/.last.ckpt.7.partial", ".metrics.json.7.partial", "checkpoints/last.ckpt", ".lock"):
        (tmp_path / name).touch()
    remove_partials(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [".lock", "last.ckpt"]


def train_until_killed(words: list[str], cwd: Path, number: int, fraction: float) -> None:
    """Run ``train.py`` here until a fraction of the ``number``-th checkpoint is written and it is killed; 0: never."""
    save, count = torch.save, itertools.count(1)

    def save_or_die(checkpoint: Any, file: Any) -> None:
        if next(count) != number:
            return save(checkpoint, file)
        buffer = io.BytesIO()
        save(checkpoint, buffer)
        file.write(buffer.getbuffer()[: round(fraction * buffer.tell())])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save_or_die
    os.chdir(cwd)
    multiprocessing.set_start_method(None, force=True)  # loader processes start as they do elsewhere
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_training_killed_at_random_moments_ends_like_an_uninterrupted_one(stack, tmp_path, seed):
    """Kill it in the middle of a checkpoint and after a random time; every checkpoint loads after each."""
    rng = random.Random(seed)
    options = ["trainer.max_epochs=4", f"data.num_workers={seed % 2}"]
    command = arguments(stack, *options, "resume=auto")

    def run(folder: str, number: int = 0, seconds: float | None = None) -> int | None:
        words = [*command, f"hydra.run.dir={folder}"]
        process = processes.CONTEXT.Process(target=train_until_killed, args=(words, tmp_path, number, rng.random()))
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
        process.join()
        for path in (tmp_path / folder).glob("checkpoints/*.ckpt"):
            load(path)
        return process.exitcode

    start = time.perf_counter()
    assert run("uninterrupted") == 0
    duration = time.perf_counter() - start
    assert run("killed", number=rng.randint(1, 6)) == -signal.SIGKILL  # it writes at least six checkpoints
    run("killed", seconds=rng.uniform(0, duration))
    assert run("killed") == 0
    folders = tmp_path / "uninterrupted", tmp_path / "killed"
    for name in ("last", "best"):
        assert_same(*(weights(folder, name) for folder in folders))
    expected, metrics = (final_metrics(json.loads((folder / "metrics.json").read_text())) for folder in folders)
    assert metrics == expected
