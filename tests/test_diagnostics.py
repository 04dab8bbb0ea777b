"""Train a small network and check that its diagnostics are written and cannot fail the run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, config
from folders import folder_of
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unet.diagnostics.diagnose import LABEL_METRICS, MODEL_PROBES
from unet.errors import UserError
from unet.task.metrics import ConfusionMatrix
from unet.training.train import train

pytestmark = pytest.mark.filterwarnings(
    "ignore:the bottleneck is:UserWarning",
    "ignore:.*torch.jit.*:DeprecationWarning",
    "ignore:.*tree.*:FutureWarning",
)
DIAGNOSTICS = {
    "boundary/iou", "boundary/iou/membrane", "boundary/iou/cell", "boundary/bf",
    "boundary/nsd", "boundary/nsd/membrane", "boundary/nsd/cell",
    "boundary/missed", "boundary/missed/membrane", "boundary/missed/cell",
    "calibration/ece", "calibration/gap", "calibration/temperature", "calibration/ece_scaled",
    "trimap/1", "trimap/2", "trimap/4", "trimap/8", "trimap/16",
    "thin/membrane", "thin/cell",
    "shift/agreement", "shift/worst", "shift/accuracy",
    "checkerboard/imbalance", "checkerboard/peak/2", "checkerboard/peak/4", "checkerboard/peak_truth/2",
    "checkerboard/peak_truth/4", "information/0", "information/1", "information/2",
}  # fmt: skip


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Return every scalar of a run's TensorBoard events by step."""
    values: dict[str, dict[int, float]] = {}
    for path in folder.rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            values.setdefault(tag, {}).update({event.step: event.value for event in events.Scalars(tag)})
    return values


def test_a_run_writes_every_diagnostic_and_a_confusion_matrix_per_image(composed, tmp_path, capsys):
    metrics = train(composed("diagnostics=true", "trainer.max_epochs=2"), tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert {f"test/{name}" for name in DIAGNOSTICS} <= metrics.keys()
    assert "skipped" not in capsys.readouterr().out
    sizes = [key for key in metrics if key.startswith("test/objects/membrane/")]
    assert sizes and all(key.replace("objects", "objects_count") in metrics for key in sizes)
    assert metrics["test/shift/worst"] <= metrics["test/shift/agreement"] <= 1
    assert metrics["time/diagnostics_seconds"] > 0

    with np.load(tmp_path / "confusions.npz") as saved:
        names, counts = saved["names"], saved["counts"]
    assert [Path(name).name for name in names] == ["8.png", "9.png"]
    total = ConfusionMatrix(2)
    total.counts += torch.from_numpy(counts.sum(0))
    assert total.counts.sum() == 2 * 48 * 48
    for name, value in total.scores(["membrane", "cell"]).items():
        assert metrics[f"test/{name}"] == pytest.approx(value, abs=1e-7)

    curves = scalars(tmp_path)
    assert sorted(curves["test/trimap"]) == [1, 2, 4, 8, 16]
    assert curves["test/trimap"][8] == pytest.approx(metrics["test/trimap/8"])
    assert sorted(curves["test/objects/membrane"]) == sorted(int(key.split("/")[-1].split("-")[0]) for key in sizes)
    assert "test/boundary/bf" in curves and "final/shift/agreement" in curves


def test_a_failed_diagnostic_is_skipped_and_the_run_finishes(composed, tmp_path, capsys, monkeypatch):
    class Fails(LABEL_METRICS["trimap"]):
        def update(self, target, pred, spacing):
            raise MemoryError("too much\nby far")

    def refuses(task, data, split):
        raise UserError("the images are too small")

    monkeypatch.setitem(LABEL_METRICS, "trimap", Fails)
    monkeypatch.setitem(MODEL_PROBES, "shift", refuses)
    metrics = train(composed("diagnostics=true", "trainer.max_epochs=1"), tmp_path)
    missing = {name for name in DIAGNOSTICS if f"test/{name}" not in metrics}
    assert missing == {name for name in DIAGNOSTICS if name.startswith(("trimap", "shift"))}
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("diagnostics:")] == [
        "diagnostics: trimap skipped: MemoryError: too much by far",
        "diagnostics: shift skipped: the images are too small",
    ]
    assert 0 <= metrics["test/miou"] <= 1 and (tmp_path / "confusions.npz").is_file()


def test_a_network_without_downsampling_has_no_phases_and_batch_limits_apply(composed, tmp_path, capsys):
    limits = ["trainer.limit_test_batches=1", "data.eval_batch_size=1"]
    metrics = train(composed("diagnostics=true", "trainer.max_epochs=1", "model.depth=0", *limits), tmp_path)
    with np.load(tmp_path / "confusions.npz") as saved:
        assert len(saved["names"]) == 1, "one image per evaluated batch"
    assert "test/information/0" in metrics and "test/boundary/bf" in metrics
    assert not [key for key in metrics if key.startswith(("test/shift", "test/checkerboard"))]
    assert capsys.readouterr().out.count("has no phases") == 2


def test_diagnostics_can_be_switched_off(composed, tmp_path):
    metrics = train(composed("trainer.max_epochs=1"), tmp_path)
    assert {"test/miou", "baseline/miou"} <= metrics.keys() and "test/boundary/bf" not in metrics
    with np.load(tmp_path / "confusions.npz") as saved:
        assert saved["groups"].tolist() == ["stack", "stack"]
        assert saved["counts"].shape == (2, 2, 2) and saved["counts"].dtype == np.int64
        assert saved["counts"].sum((0, 2)).tolist() == label_counts(saved["names"])


def label_counts(names) -> list[int]:
    """Return the number of membrane and of cell pixels in the masks of images."""
    masks = [np.asarray(Image.open(str(name).replace("image", "label"))) for name in names]
    return [sum(int((mask == value).sum()) for mask in masks) for value in (0, 255)]


def test_the_confusions_of_a_run_without_a_test_split_are_those_of_val(tmp_path):
    data = ["data=folder", f"data.root={folder_of(tmp_path / 'data', ['a_1', 'a_2', 'b_1', 'c_1', 'd_1'], (48, 48))}"]
    data += ["data.source.values={0: a, 1: b}", "data.source.group='^(.)_'", "data.batch_size=2"]
    splits = "data.source.splits={train: 0.6, val: 0.4, test: null}"
    metrics = train(config(*data, splits, *TINY, "trainer.max_steps=1", "data.eval_batch_size=1"), tmp_path)
    with np.load(tmp_path / "confusions.npz") as saved:
        assert metrics["val/images"] == len(saved["names"]) == 2
        assert saved["groups"].tolist() == [Path(name).stem[0] for name in saved["names"]]
        assert saved["counts"].sum((1, 2)).tolist() == [48 * 48] * 2
