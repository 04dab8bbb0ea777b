"""Training: results, TensorBoard logs, exact resuming, invalid networks and losses."""

import json
import os
import shutil
import signal
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import IMAGES, TINY, config
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from unet import DOWN, UP, UNet
from unet.errors import Interrupted, UserError
from unet.inference.checkpoint import load
from unet.network.normalization import Normalize
from unet.task.losses import LOSSES, make_loss
from unet.task.metrics import ConfusionMatrix
from unet.task.module import SegmentationTask
from unet.training.build import build_data, build_task
from unet.training.callbacks.progress import Progress
from unet.training.callbacks.tensorboard import add_curves
from unet.training.train import evaluate, train

pytestmark = pytest.mark.filterwarnings(
    "ignore:the bottleneck is:UserWarning",
    "ignore:.*torch.jit.*:DeprecationWarning",
    "ignore:.*tree.*:FutureWarning",
)

QUICK = ("trainer.max_epochs=1",)


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int, signum: int = signal.SIGTERM) -> None:
    """Send this process ``signum`` in the middle of a step, once."""
    sent = []

    class Interrupting(Progress):
        def on_train_batch_start(self, trainer, *args) -> None:
            if trainer.global_step == step - 1 and not sent:
                sent.append(signum)
                os.kill(os.getpid(), signum)

    monkeypatch.setattr("unet.training.train.Progress", Interrupting)


def test_a_run_learns_and_writes_a_complete_folder(composed, tmp_path):
    metrics = train(composed("trainer.max_epochs=8", "optim.lr=0.02", "model.dropout=0", *IMAGES), tmp_path)
    assert metrics["test/miou"] > 0.85
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    for name in ("dice", "accuracy", "class_accuracy", "iou/cell", "dice/membrane", "loss"):
        assert 0 <= metrics[f"test/{name}"] <= 1
    for key in ("model/parameters", "time/train_seconds", "time/samples_per_second", "memory/peak_bytes"):
        assert metrics[key] > 0
    assert metrics["model/receptive_field"] == [32, 32] and metrics["model/flops_input"] == "1x32x32"
    layers = {layer["name"]: layer for layer in metrics["model/stages"]}
    assert layers["downs.1"]["operator"] == "max" and layers["downs.1"]["size"] == [8, 8]
    assert sum(layer["flops"] for layer in layers.values()) == metrics["model/flops"]
    assert metrics["seed"] == 0 and metrics["steps"] == 32 and metrics["test/absent"] == []
    assert {"best.ckpt", "last.ckpt"} == {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert (tmp_path / "predictions.png").stat().st_size > 1000
    assert not list(tmp_path.rglob("*.partial"))
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert metrics["best/epoch"] == best["epoch"] + 1
    assert best["description"]["classes"] == ["membrane", "cell"] and best["description"]["model"]["down"] == "max"


def event_files(folder: Path) -> list[EventAccumulator]:
    """Read the TensorBoard files of a run."""
    files = [EventAccumulator(str(path), size_guidance={"images": 0}) for path in folder.rglob("events.out.tfevents.*")]
    for events in files:
        events.Reload()
    return files


def test_tensorboard_has_scores_images_graph_and_hparams(composed, tmp_path):
    train(composed("trainer.max_epochs=1", "trainer.log_every_n_steps=1", *IMAGES), tmp_path)
    files = event_files(tmp_path)
    scalars, images = ({tag for events in files for tag in events.Tags()[kind]} for kind in ("scalars", "images"))
    assert {"train/loss", "val/loss", "val/miou", "val/iou/cell", "lr-Muon/new", "time/samples_per_second"} <= scalars
    assert {"share/true/cell", "share/predicted/cell", "test/miou"} <= scalars
    assert {"val/0", "val/confusion", "features/downs.0_max", "features/ups.1_transposed"} <= images
    assert any("network/text_summary" in events.Tags()["tensors"] for events in files)
    assert any(events.Tags()["graph"] for events in files)
    assert any("_hparams_/session_start_info" in events.summary_metadata for events in files)


@pytest.mark.parametrize(("limit", "count"), [(1.0, 2), (1, 1)])
def test_predictions_png_shows_the_best_checkpoint_on_images_that_were_evaluated(
    composed, stack, tmp_path, monkeypatch, limit, count
):
    drawn = []
    monkeypatch.setattr("unet.training.train.prediction_grid", lambda panels, *args: drawn.extend(panels) or panels[0])
    settings = (f"data.eval_batch_size={count}", f"trainer.limit_test_batches={limit}", *IMAGES)
    train(composed("trainer.max_epochs=8", "optim.lr=0.02", "model.dropout=0", *settings), tmp_path)
    assert len(drawn) == count
    segmenter = load(tmp_path / "checkpoints" / "best.ckpt")
    expected = [segmenter.predict(np.asarray(Image.open(path))) for path in (stack / "image").iterdir()]
    predictions = [np.array(segmenter.colors, np.uint8)[labels] for labels in expected]
    for picture in drawn:
        assert [(picture[:, 104:152] == prediction).all() for prediction in predictions].count(True) == 1


@pytest.mark.parametrize("accumulate", [1, 3])
def test_class_shares_are_logged_once_a_step_from_step_0(composed, tmp_path, accumulate):
    overrides = ("trainer.log_every_n_steps=1", f"trainer.accumulate_grad_batches={accumulate}", IMAGES[0])
    train(composed("trainer.max_epochs=2", *overrides), tmp_path)
    steps = []
    for events in event_files(tmp_path):
        assert not [tag for tag in events.Tags()["images"] if tag.startswith("features")]
        if "share/predicted/cell" in events.Tags()["scalars"]:
            steps += [event.step for event in events.Scalars("share/predicted/cell")]
    assert steps == list(range(8 if accumulate == 1 else 4))


def test_only_diagnostics_of_a_size_are_curves_whatever_the_classes_are_called():
    points: dict[str, dict[int, float]] = {}

    class Writer:
        def add_scalar(self, name: str, value: float, step: int) -> None:
            points.setdefault(name, {})[step] = value

    scores = {"test/boundary/iou": 1.0, "test/boundary/iou/8": 2.0, "test/thin/8": 3.0, "test/objects/8/16-64": 4.0}
    scores |= {"test/trimap/4": 5.0, "test/information/0": 6.0, "test/checkerboard/peak_truth/2": 7.0}
    add_curves(Writer(), scores, 99)  # type: ignore[arg-type]
    assert points == {
        **{name: {99: scores[name]} for name in ("test/boundary/iou", "test/boundary/iou/8", "test/thin/8")},
        **{"test/objects/8": {16: 4.0}, "test/trimap": {4: 5.0}, "test/information": {0: 6.0}},
        "test/checkerboard/peak_truth": {2: 7.0},
    }


def test_the_seed_alone_decides_the_weights_for_any_number_of_workers(composed, tmp_path):
    for seed, workers in ((0, 0), (0, 1), (0, 2), (1, 0)):
        train(composed(f"seed={seed}", f"data.num_workers={workers}", *QUICK), tmp_path / f"{seed} {workers}")
    first = weights(tmp_path / "0 0")
    assert_same(first, weights(tmp_path / "0 1"))
    assert_same(first, weights(tmp_path / "0 2"))
    assert not torch.equal(first["net.head.weight"], weights(tmp_path / "1 0")["net.head.weight"])


OPTIONS = [
    ["ema=0.9"],
    ["data.num_workers=2"],
    ["trainer.accumulate_grad_batches=2"],
    ["optim.schedule=cosine", "trainer.precision=bf16-mixed"],
    ["trainer.max_epochs=-1", "trainer.max_steps=10", "early_stopping=5"],
    ["trainer.limit_train_batches=3"],
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "overrides"),
    [(1, []), (4, []), (6, list(IMAGES)), (12, [])]  # the first, at the end of and within an epoch, the last
    + [(step, options) for step in (3, 6) for options in OPTIONS],
    ids=str,
)
def test_an_interrupted_run_resumes_to_the_same_weights(
    composed, uninterrupted, tmp_path, monkeypatch, step, overrides
):
    (reference, expected), resumed = uninterrupted(*overrides), tmp_path
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        interrupt(patch, step)
        with pytest.raises(Interrupted) as interrupted:
            train(composed(*overrides), resumed)
    assert interrupted.value.signum == signal.SIGTERM
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == handlers
    metrics = train(composed(*overrides, f"ckpt_path={interrupted.value.checkpoint}"), resumed)
    assert_same(weights(reference), weights(resumed))
    assert_same(weights(reference, "best"), weights(resumed, "best"))
    scores = [name for name in expected if name.startswith(("test/", "best/"))]
    assert {name: metrics[name] for name in scores} == {name: expected[name] for name in scores}


def test_without_a_test_split_the_best_checkpoint_is_evaluated_on_validation(stack, tmp_path):
    """The learning rate is so high that the last epoch is not the best; Lightning would evaluate its average."""
    shutil.copytree(stack / "image", tmp_path / "data" / "images")
    shutil.copytree(stack / "label", tmp_path / "data" / "masks")
    folder = ["data=folder", f"data.root={tmp_path / 'data'}", "data.source.values={0: wall, 255: cell}", *TINY, *QUICK]
    splits = "data.source.splits={train: 0.7, val: 0.3, test: null}"
    unsteady = ["optim.lr=0.05", "optim.schedule=constant", "trainer.max_epochs=5", "ema=0.5"]
    metrics = train(config(*folder, splits, *unsteady), tmp_path / "run")
    assert metrics["best/epoch"] < 5 and not any(key.startswith("test/") for key in metrics)
    assert metrics["val/miou"] == pytest.approx(metrics["best/val_miou"], abs=1e-6)


def test_a_resumed_run_continues_its_clock(composed, tmp_path, monkeypatch):
    interrupt(monkeypatch, 7)
    with pytest.raises(Interrupted):
        train(composed(), tmp_path)
    last = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    state = checkpoint["callbacks"]["progress"]
    assert state["samples"] == 7 * 4 and 0 < state["seconds"] < state["spent"]
    state["spent"] += 1000
    torch.save(checkpoint, last)
    monkeypatch.undo()
    assert train(composed(f"ckpt_path={last}"), tmp_path)["time/train_seconds"] > 1000


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("step", [2, 3], ids=["within an epoch", "before a checkpoint"])
def test_a_non_finite_loss_stops_the_run_and_names_step_and_layer(composed, tmp_path, monkeypatch, asynchronous, step):
    class Poisoning(Progress):
        def on_train_batch_start(self, trainer, pl_module, *args) -> None:
            if trainer.global_step == step:
                pl_module.net.encoder[0][1][1].register_forward_hook(lambda module, inputs, output: output / 0)

    monkeypatch.setattr("unet.training.train.Progress", Poisoning)
    if asynchronous:  # as on a GPU
        monkeypatch.setattr("unet.task.module.ASYNCHRONOUS", {"cpu"})
    message = rf"at step {step} \(epoch 0\): the first layer .* is encoder\.0\.1\.1 \(BatchNorm2d\)"
    with pytest.raises(UserError, match=message):
        train(composed(*QUICK), tmp_path)
    checkpoints = list(tmp_path.glob("checkpoints/*.ckpt"))
    assert [path.name for path in checkpoints] == ([] if asynchronous else ["last.ckpt"])
    assert all(value.isfinite().all() for _ in checkpoints for value in weights(tmp_path).values())


@pytest.mark.parametrize("down, up", [(down, up) for down in DOWN for up in UP if "max" in down or up == "transposed"])
def test_a_step_reads_no_value_from_the_device(down, up):
    """On the meta device, where tensors have no values, reading one is an error; on a GPU it would wait."""
    settings = {"lr": 1e-3, "weight_decay": 0.0, "betas": (0.9, 0.999)}
    with torch.device("meta"):
        net = UNet(in_channels=3, num_classes=3, width=4, depth=1, down=down, up=up)
        normalize = Normalize([0.0] * 3, [1.0] * 3, spatial_dims=2)
        losses = [make_loss(name, [1.0, 1.0, 3.0]) for name in LOSSES]
        task = SegmentationTask(net, normalize, losses[0], list("abc"), settings, {}, seed=0)
        images, target = torch.rand(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.int64)
        task.confusion = ConfusionMatrix(3, images.device)
    optimizer = torch.optim.AdamW(task.parameters(), **settings)
    logits = task(images)
    torch.stack([loss(logits, target) for loss in losses]).sum().backward()
    task.configure_gradient_clipping(optimizer, 1.0, "norm")
    optimizer.step()
    task.confusion.update(task.predict_labels(logits), target)


def test_a_device_that_runs_behind_is_not_waited_for(composed, tmp_path, monkeypatch):
    """The loss of a step is read after the forward pass of the next, and the weights are the same."""
    monkeypatch.setattr("unet.task.module.ASYNCHRONOUS", {"cpu"})
    events: list[str] = []
    read = torch.Tensor.__bool__
    monkeypatch.setattr("torch.Tensor.__bool__", lambda self: events.append("read") or read(self))

    class Recording(Progress):
        def on_train_batch_start(self, *args) -> None:
            events.append("begin")

        def on_before_backward(self, *args) -> None:
            events.append("end")

    monkeypatch.setattr("unet.training.train.Progress", Recording)
    train(composed(*QUICK), tmp_path / "late")
    assert "read" not in events[events.index("begin") : events.index("end")]
    monkeypatch.undo()
    train(composed(*QUICK), tmp_path / "immediate")
    assert_same(weights(tmp_path / "late"), weights(tmp_path / "immediate"))


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_a_fused_optimizer_clips_gradients_in_mixed_precision(composed, tmp_path, monkeypatch, algorithm):
    largest = []

    class Recording(Progress):
        def on_before_zero_grad(self, trainer, pl_module, optimizer) -> None:
            largest.extend(float(p.grad.abs().max()) for p in pl_module.parameters() if p.grad is not None)

    monkeypatch.setattr("unet.training.train.Progress", Recording)
    clipping = ("trainer.gradient_clip_val=0.001", f"trainer.gradient_clip_algorithm={algorithm}")
    train(composed("trainer.precision=bf16-mixed", "trainer.max_epochs=1", *clipping), tmp_path)
    assert 0 < max(largest) <= 0.00101


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_adjusted_logits_give_the_more_probable_class(composed, spatial_dims):
    config = composed("loss.class_weights=[1,3]", "loss.logit_adjustment=true")
    data = build_data(config)
    data.scan()
    task = build_task(config, data)
    # With class probabilities 0.6 and 0.4, the weighted cross-entropy is smallest at 0.6 : 3 x 0.4.
    logits = torch.tensor([0.6, 3 * 0.4]).log().view(1, 2, *[1] * spatial_dims)
    assert logits.argmax(1).item() == 1
    assert task.predict_labels(logits).item() == 0
    assert "log_weights" not in task.state_dict(), "checkpoints from before the option load"
    plain = build_task(composed("loss.class_weights=[1,3]"), data)
    assert plain.predict_labels(logits).item() == 1


@pytest.mark.parametrize("split", ["test", "val"])
def test_precision_recall_curves_of_a_trained_network(composed, tmp_path, monkeypatch, split):
    if split == "val":
        monkeypatch.setattr("unet.data.module.SegmentationData.eval_split", "val")
    metrics = train(composed(*QUICK, "trainer.max_epochs=8", "optim.lr=0.02", "model.dropout=0"), tmp_path)
    assert metrics[f"{split}/miou"] > 0.85
    points = {}
    for events in event_files(tmp_path):
        for tag in events.Tags()["tensors"]:
            if tag.startswith("precision_recall"):
                points[tag] = tensor_util.make_ndarray(events.Tensors(tag)[0].tensor_proto)
    assert points.keys() == {"precision_recall/membrane", "precision_recall/cell"}
    for tp, fp, tn, fn, precision, recall in points.values():
        assert (tp + fn == tp[0]).all() and (fp + tn == fp[0]).all()
        assert recall[0] == 1 and precision[0] == pytest.approx(tp[0] / (tp[0] + fp[0]))
        assert (recall[1:] <= recall[:-1]).all()
        middle = len(tp) // 2
        assert precision[middle] > 0.8 and recall[middle] > 0.8


def test_early_stopping_stops(composed, tmp_path):
    overrides = ("optim.lr=1e-12", "early_stopping=1", "trainer.max_epochs=9", "model.dropout=0")
    assert train(composed(*QUICK, *overrides), tmp_path)["steps"] < 9 * 4


@pytest.mark.parametrize(
    "end",
    [
        ["trainer.max_steps=2"],  # within the first epoch
        ["trainer.max_steps=6", "trainer.check_val_every_n_epoch=2", "ema=0.5"],
        ["trainer.max_epochs=2", "trainer.check_val_every_n_epoch=5"],
        ["trainer.max_steps=3", "trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=50"],
        ["trainer.max_time=00:00:00:01", "data.samples_per_epoch=100000"],
        ["trainer.max_steps=2", "trainer.val_check_interval=0.5", "trainer.limit_val_batches=1"],
    ],
    ids=lambda end: " ".join(end),
)
def test_a_training_ends_with_a_validation_and_a_best_checkpoint(composed, tmp_path, end):
    metrics = train(composed(*QUICK[1:], *end), tmp_path)
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == metrics["best/step"] == metrics["steps"] > 0
    assert 0 <= metrics["best/val_miou"] <= 1


def test_what_follows_the_evaluation_runs_on_the_trainer_s_device(composed):
    """Images, diagnostics and the peak memory: the trainer moves the module to the CPU."""
    config = composed()
    data = build_data(config)
    data.scan()
    task = build_task(config, data)
    strategy = SimpleNamespace(root_device=torch.device("meta"))

    def score(*arguments: Any, **options: Any) -> list[dict[str, float]]:
        return [{"test/miou": 0.5}]

    trainer: Any = SimpleNamespace(test=score, strategy=strategy, is_global_zero=True)
    assert evaluate(trainer, task, data)["test/miou"] == 0.5
    assert task.device.type == "meta"


@pytest.mark.parametrize(
    ("override", "message"), [("model.down=strded", "did you mean strided"), ("model.width=[4,6]", "3 numbers")]
)
def test_a_wrong_network_is_refused_before_the_data_is_read(composed, tmp_path, monkeypatch, override, message):
    monkeypatch.setattr("unet.data.SegmentationData.scan", lambda self: pytest.fail("the data set was read"))
    with pytest.raises(UserError, match=message):
        train(composed(override), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "override",
    [
        *("loss.name=focal", "loss.class_weights=[1,2]", "ema=0.99", "trainer.fast_dev_run=true"),
        *("model.width=[4,6,8]", "model.down=[max,strided]", "model.up={name: transposed, kernel_size: 4}"),
    ],
)
def test_options_train(composed, tmp_path, override):
    assert 0 <= train(composed("trainer.max_epochs=1", override), tmp_path)["test/miou"] <= 1


@pytest.mark.slow
def test_a_compiled_network_trains_as_the_plain_one_does(composed, tmp_path, monkeypatch):
    graphs: list[torch.fx.GraphModule] = []

    def eager(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        return graphs.append(graph) or graph

    monkeypatch.setattr("torch.nn.Module.compile", partialmethod(torch.nn.Module.compile, backend=eager))
    # The compiled network has other rounding errors, which Muon's bfloat16 would amplify.
    overrides = (*QUICK, "model.dropout=0", "diagnostics=true", "optim.name=adamw")
    compiled = train(composed(*overrides, "compile=true"), tmp_path / "compiled")
    assert graphs
    plain = train(composed(*overrides), tmp_path / "plain")
    scores = [name for name in plain if name.startswith(("test/", "val/", "best/", "train/"))]
    assert "test/information/0" in scores and {name: compiled[name] for name in scores} == {
        name: pytest.approx(plain[name], rel=1e-4) for name in scores
    }
    for name, value in weights(tmp_path / "plain").items():
        torch.testing.assert_close(weights(tmp_path / "compiled")[name], value, rtol=1e-4, atol=1e-5)
