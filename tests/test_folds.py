"""Cross-validation: folds of a folder's images, and the report that pairs runs over folds."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from conftest import config
from folders import CLASSES, folder_of, names
from sweeps import counts_of, leave_run, metrics_of

from unet import report
from unet.data.folder import Folder
from unet.errors import UserError
from unet.report.analysis import analyze
from unet.report.csv_table import to_csv
from unet.report.hparams import write_hparams_summary
from unet.report.page import render_html, render_markdown
from unet.report.summary_text import conclusions
from unet.runs.run_names import sweep_name


def folder(root: Path, **options) -> Folder:
    return Folder(str(root), **{"classes": CLASSES, **options})


def test_folds_divide_the_images_of_train_and_val(tmp_path: Path):
    root = folder_of(tmp_path, [f"{patient}_{number}" for patient in "abcdefgh" for number in range(3)])
    options: dict = {"splits": {"train": 0.6, "val": 0.2, "test": 0.2}, "group": "^(.)_"}

    def splits(**more) -> dict[str, list[str]]:
        return {key: names(items) for key, items in folder(root, **options, **more).items.items()}

    folds = [splits(fold=fold, folds=3) for fold in range(3)]
    today, everything = splits(), {path.stem for path in (root / "images").iterdir()}
    assert all(fold["test"] == today["test"] for fold in folds) and today == splits(split_seed=0)
    vals = [name for fold in folds for name in fold["val"]]
    assert len(vals) == len(set(vals)) and {*vals, *today["test"]} == everything, "every other image is val once"
    for fold in folds:
        assert {*fold["train"], *fold["val"], *fold["test"]} == everything
        assert not {name[0] for name in fold["train"]} & {name[0] for name in fold["val"]}, "patients stay together"
        assert 6 <= len(fold["val"]) <= 9
    assert [splits(fold=fold, folds=3) for fold in range(3)] == folds
    assert splits(split_seed=1)["test"] != today["test"] and splits(fold=0, folds=3, split_seed=1) != folds[0]


def test_a_list_of_test_images_is_in_no_fold(five: Path):
    (five / "test.txt").write_text("2\n4\n")
    splits = {"train": 1, "val": 1, "test": "test.txt"}
    folds = [folder(five, splits=splits, fold=fold, folds=3).items for fold in range(3)]
    assert all(names(fold["test"]) == ["2", "4"] for fold in folds)
    assert sorted(name for fold in folds for name in names(fold["val"])) == ["0", "1", "3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": 5}, "data.source.fold: expected an integer of 0 to 4, found 5"),
        ({"fold": "a"}, "data.source.fold: expected an integer"),
        ({"folds": 1}, "data.source.folds: expected an integer of 2"),
        ({"split_seed": -1}, "data.source.split_seed: expected an integer of 0"),
        ({"fold": 0, "splits": {"train": "train.txt", "val": "val.txt"}}, "data.source.splits.train is a list"),
        ({"fold": 0, "splits": {"train": 1, "val": 1, "test": 1}}, "cannot be divided into data.source.folds=5"),
    ],
)
def test_invalid_folds_are_refused(five: Path, options: dict, message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        _ = folder(five, **options).items


def test_folds_of_folders_of_splits_are_refused(tmp_path: Path):
    for split in ("train", "val"):
        folder_of(tmp_path / split, ["0", "1"])
    with pytest.raises(UserError, match="are the splits already"):
        _ = folder(tmp_path, fold=0).items


def test_class_names_of_other_types_are_texts(tmp_path: Path):
    assert Folder(str(tmp_path), values={0: False, 255: True}).classes == ("False", "True")
    assert Folder(str(tmp_path), classes=[1, 2.5, "Gebäude"]).classes == ("1", "2.5", "Gebäude")
    with pytest.raises(UserError, match="for 0, found None"):
        Folder(str(tmp_path), values={0: None, 255: "cell"})


def sweep(root: Path, folds: range, seeds: range, gain: float = 0.05, split: str = "val") -> Path:
    """Write runs of two arms: a fold and a seed add the same to both, and ``strided`` has ``gain`` more."""
    rng = np.random.default_rng(0)
    for fold, seed in product(folds, seeds):
        base = 0.5 + rng.uniform(-0.2, 0.2)
        for down, more in (("max", 0), ("strided", gain + 0.001 * rng.normal())):
            metrics = metrics_of(base + more, seed)
            values = {key.replace("test/", f"{split}/", 1): value for key, value in metrics.items()}
            counts = counts_of(np.full(12, base + more))
            run = leave_run(root, {"model.down": down, "data.source.fold": fold, "seed": seed}, values, counts=counts)
            image_names = [f"image{split}{fold if split == 'val' else ''}{index}" for index in range(12)]
            np.savez_compressed(run / "confusions.npz", names=image_names, counts=counts)
    return root


def test_the_report_pairs_runs_over_folds(tmp_path: Path):
    analysis = analyze(sweep(tmp_path, range(6), range(1)))
    (contrast,) = analysis.contrasts
    assert analysis.factors == ["model.down"] and analysis.unit == "fold"
    assert analysis.scores.seeds == [(fold, 0) for fold in range(6)] and contrast.seeds == 6
    assert contrast.difference == pytest.approx(0.05, abs=0.002) and contrast.high - contrast.low < 0.01, "paired"
    assert contrast.differs
    text = " ".join(conclusions(analysis))
    assert "6 folds" in text and "seed" not in text
    assert "Each fold is a replicate, evaluated on its own validation images" in text and "too narrow" in text
    assert analysis.warnings == [] and analysis.units == 0
    page = render_markdown(analysis) + render_html(analysis)
    assert "paired by fold" in page and "sd over folds" in page and "fold 3, seed 0" in page
    assert to_csv(analysis).splitlines()[0].startswith("run,arm,seed,fold,state")
    write_hparams_summary(analysis)
    assert report.write_report(analysis)


def test_folds_and_seeds_together_are_replicates(tmp_path: Path):
    analysis = analyze(sweep(tmp_path, range(3), range(2), split="test"))
    (contrast,) = analysis.contrasts
    assert contrast.seeds == 6 and analysis.unit == "replicate" and analysis.units == 12, "the same test images"
    assert "Each combination of a fold and a seed is a replicate, evaluated on the same test images" in " ".join(
        conclusions(analysis)
    )


def test_splits_that_rotate_with_the_seed_are_no_factor_and_only_seeds_are_resampled(tmp_path: Path):
    rng = np.random.default_rng(0)
    for seed in range(8):
        base = rng.uniform(0.3, 0.7)  # a hard split is hard for both arms
        for down, more in (("max", 0), ("strided", 0.05 + 0.001 * rng.normal())):
            settings = {"model.down": down, "data.source.split_seed": seed, "seed": seed}
            run = leave_run(tmp_path, settings, metrics_of(base + more, seed))
            counts = counts_of(np.full(12, base + more))
            np.savez_compressed(run / "confusions.npz", names=[f"{seed} {index}" for index in range(12)], counts=counts)
    analysis = analyze(tmp_path)
    assert analysis.factors == ["model.down"] and [arm.label for arm in analysis.arms] == ["max", "strided"]
    assert analysis.units == 0 and not analysis.warnings
    assert analysis.contrasts[0].differs and abs(analysis.contrasts[0].difference) == pytest.approx(0.05, abs=0.002)
    for path in tmp_path.glob("*/config.yaml"):
        path.write_text(re.sub("split_seed: .*", "split_seed: 0", path.read_text()))
    assert "was evaluated on other images" in analyze(tmp_path).warnings[0], "with one split they should be equal"


def test_five_folds_cannot_decide_and_a_missing_fold_is_named(tmp_path: Path):
    sweep(tmp_path, range(5), range(1))
    extra = {"model.down": "max", "data.source.fold": 5, "seed": 0}
    leave_run(tmp_path, extra, {"val/miou": 0.5, "seed": 0})
    analysis = analyze(tmp_path)
    assert "Nothing can be decided with 5 folds" in conclusions(analysis)[1]
    assert [(run.arm, run.replicate) for run in analysis.missing_runs if run.state == "missing"] == [
        ("strided", (5, 0))
    ]


def test_folds_of_one_sweep_have_one_folder_and_other_data_sets_have_none():
    words = ["data=folder", "model.down=max,avg"]
    assert sweep_name([*words, "data.source.fold=0,1"]) == sweep_name([*words, "data.source.fold=2,3", "seed=1"])
    assert config("data=folder", "data.source.fold=3").data.source.fold == 3
