"""Analyze sweep folders: factors, paired runs, missing runs, and the verdicts of common claims."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from sweeps import counts_of, leave_run, metrics_of, sweep_of, words_of

from unet.errors import UserError
from unet.report import analyze
from unet.report.arms import Arm, arm_label, find_factors, format_value, shorten_keys
from unet.report.common_claims import compare_levels, evaluate_claims, largest_vs_smallest, matched_vs_crossed
from unet.report.metrics import FROM_COUNTS, object_bins
from unet.report.read_sweep import read_sweep
from unet.report.summary_text import conclusions

GRID = [{"model.down": down, "model.up": up} for down in ("max", "strided") for up in ("transposed", "bilinear")]


def test_a_run_is_read_with_its_command_and_metrics(tmp_path: Path):
    sweep_of(tmp_path, GRID[:1], np.array([[0.5]]))
    (run,) = read_sweep(tmp_path).runs
    assert run.state == "done" and run.seed == 0 and run.setting("model.down") == "max"
    assert run.command == "python train.py model.down=max model.up=transposed seed=0"
    assert run.overrides == {"model.down": "max", "model.up": "transposed", "seed": 0}
    assert run.metrics["test/miou"] == 0.5


def test_the_command_of_an_older_run_is_read_from_its_config(tmp_path: Path):
    folder = leave_run(tmp_path, {"model.down": "max", "seed": 0}, metrics_of(0.5, 0))
    (folder / "status.json").write_text('{"state": "done", "reason": ""}')
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(f"# python train.py model.down=avg 'seed=3'\n{config}")
    (run,) = read_sweep(tmp_path).runs
    assert run.command == "python train.py model.down=avg seed=3" and run.overrides == {"model.down": "avg", "seed": 3}


def test_a_broken_run_is_reported_and_the_others_are_compared(tmp_path: Path):
    sweep_of(tmp_path, GRID[:2], np.array([[0.5, 0.6], [0.6, 0.7]]))
    broken = next(tmp_path.glob("*bilinear,seed=1"))
    (broken / "metrics.json").write_text('{"test/miou": 0.')
    analysis = analyze(tmp_path)
    (missing,) = analysis.missing_runs
    assert missing.state == "unreadable" and missing.name == broken.name and "broken" in missing.reason
    assert analysis.pairs[0][2].seeds == 1


RUNTIME = {"isolate": True, "retry_failed": False, "resume": "auto", "halve_batch": False, "diagnostics": True}


@pytest.mark.parametrize("key", RUNTIME)
def test_a_sweep_continued_with_another_runtime_key_keeps_its_arms(tmp_path: Path, key: str):
    """The value changes after the first arm: neither a factor of its own nor one that splits the other."""
    for number, (down, seed) in enumerate([("max", 0), ("strided", 0), ("max", 1), ("strided", 1)]):
        value = RUNTIME[key] if number else None
        leave_run(tmp_path, {"model.down": down, "seed": seed, key: value}, metrics_of(0.5, seed))
    analysis = analyze(tmp_path)
    assert analysis.factors == ["model.down"] and [len(arm.runs) for arm in analysis.arms] == [2, 2]


def test_seeds_and_paths_are_no_factors(tmp_path: Path):
    for seed in (0, 1):
        for width in (8, 16):
            extra = {"data.root": f"place{seed}{width}", "data.shuffle_seed": seed, "threads": width}
            leave_run(tmp_path, {"model.width": width, "seed": seed, **extra}, metrics_of(0.5, seed))
    analysis = analyze(tmp_path)
    assert analysis.factors == ["model.width"] and [arm.label for arm in analysis.arms] == ["width=8", "width=16"]
    assert [sorted(runs) for runs in analysis.runs] == [[0, 1], [0, 1]]


def test_a_key_that_follows_another_is_no_factor(tmp_path: Path):
    for name, lr in (("sea", 0.1), ("land", 0.2)):
        run = leave_run(tmp_path, {"data.name": name, "optim.lr": lr, "seed": 0}, metrics_of(0.5, 0))
        status = {"state": "done", "command": ["python", "train.py", f"data={name}", "seed=0"]}
        (run / "status.json").write_text(json.dumps(status))
    keys, dependent_keys = find_factors(read_sweep(tmp_path).runs)
    assert keys == ["data.name"] and dependent_keys == {"optim.lr": "data.name"}


def test_keys_that_a_command_sets_are_factors(tmp_path: Path):
    sweep_of(tmp_path, [GRID[0], GRID[3]], np.array([[0.5], [0.6]]))
    assert [arm.label for arm in analyze(tmp_path).arms] == ["max + transposed", "strided + bilinear"]


def test_tuning_selects_the_best_value_on_validation(tmp_path: Path):
    """For max the best value is 0.1 on the test split and 0.01 on validation, which decides; for strided it is 0.1."""
    validation = {("max", 0.01): 0.7, ("max", 0.1): 0.6, ("strided", 0.01): 0.4, ("strided", 0.1): 0.5}
    for (down, lr), score in validation.items():
        for seed in range(2):
            metrics = metrics_of(1 - score, seed) | {"best/val_miou": score + seed / 100}
            leave_run(tmp_path, {"model.down": down, "optim.lr": lr, "seed": seed}, metrics)
    leave_run(tmp_path, {"model.down": "max", "optim.lr": 0.5, "seed": 0}, None, "failed", "loss: nan")
    assert len(analyze(tmp_path).arms) == 5
    analysis = analyze(tmp_path, tune="optim.lr")
    assert [arm.label for arm in analysis.arms] == ["max", "strided"] and not analysis.missing_runs
    assert analysis.scores.values.tolist() == pytest.approx(np.array([[0.3, 0.3], [0.5, 0.5]]))
    assert "max is compared at optim.lr=0.01 (mean validation mIoU by value: 0.01: 0.7050," in analysis.tuning_notes[0]


def test_tuning_needs_validation_scores(tmp_path: Path):
    sweep_of(tmp_path, GRID, np.full((4, 2), 0.5))
    with pytest.raises(UserError, match="no run has the validation score"):
        analyze(tmp_path, tune="model.up")


def test_labels():
    assert arm_label({"model.down": "max", "model.up": "nearest"}) == "max + nearest"
    assert arm_label({"model.down": "max", "optim.lr": "0.1"}) == "down=max, lr=0.1"
    assert shorten_keys(["a.b.lr", "c.lr", "model.up"]) == {"a.b.lr": "b.lr", "c.lr": "c.lr", "model.up": "up"}
    assert format_value({"name": "max", "kernel_size": 3}) == "max(kernel_size=3)"
    assert [format_value(v) for v in (None, True, 1e-3, ["max", "avg"], {"a": 1})] == [
        "null", "true", "0.001", "[max, avg]", "(a=1)"
    ]  # fmt: skip


def test_runs_pair_by_seed_and_failures_are_excluded(tmp_path: Path):
    """Arm 0 has seeds 0 to 3, arm 1 lost seed 1 to an error and seed 2 to nan and never had seed 3."""
    first, second = GRID[0], GRID[1]
    sweep_of(tmp_path, [first], np.array([[0.5, 0.6, 0.7, 0.8]]))
    leave_run(tmp_path, {**second, "seed": 0}, metrics_of(0.52, 0))
    leave_run(tmp_path, {**second, "seed": 1}, None, "failed", "loss: nan at step 7")
    leave_run(tmp_path, {**second, "seed": 2}, metrics_of(math.nan, 2))
    analysis = analyze(tmp_path)
    ((_, _, pair),) = analysis.pairs
    assert pair.name == "bilinear vs transposed" and pair.differences == pytest.approx([0.02])
    assert {(missing.replicate, missing.state) for missing in analysis.missing_runs} == {
        (1, "failed"),
        (2, "diverged"),
        (3, "missing"),
    }
    assert "loss: nan at step 7" in [missing.reason for missing in analysis.missing_runs]
    assert not analysis.can_decide and not analysis.ranks()


def test_planned_runs_that_never_started_are_missing(tmp_path: Path):
    arms = [{**arm, "seed": seed} for arm in GRID for seed in (0, 1)]
    for overrides in arms[:-1]:
        leave_run(tmp_path, overrides, metrics_of(0.5, overrides["seed"]))
    jobs = {",".join(words_of(overrides)): words_of(overrides) for overrides in arms}
    (tmp_path / "sweep.json").write_text(json.dumps({"commands": ["python train.py -m ..."], "jobs": jobs}))
    analysis = analyze(tmp_path)
    (missing,) = analysis.missing_runs
    assert (missing.arm, missing.replicate, missing.state) == ("strided + bilinear", 1, "missing")
    assert missing.command == "python train.py model.down=strided model.up=bilinear seed=1"
    assert analysis.sweep.commands == ["python train.py -m ..."]
    assert [run.name for run in analysis.sweep.runs] == list(jobs)


def test_equal_arms_with_other_seeds_measure_seed_noise(tmp_path: Path):
    """A grid of two by two, and one of its cells again with other seeds, marked by ``arm``."""
    sweep_of(tmp_path, GRID, np.random.default_rng(1).normal(0.5, 0.01, (4, 8)))
    sweep_of(tmp_path, [{**GRID[0], "arm": "again"}], np.array([[0.51, 0.53, 0.55]]), first_seed=10)
    analysis = analyze(tmp_path)
    assert [arm.label for arm in analysis.arms if "again" in arm.label] == ["max + transposed (again)"]
    ((_, _, noise),) = analysis.repeats
    assert not noise.is_paired and noise.low < noise.difference < noise.high and noise.seeds == 0
    assert len(analysis.contrasts) == len(analysis.family) == 6 and not analysis.missing_runs
    assert analysis.effects is not None and analysis.effects.seeds == 8
    assert sorted(analysis.ranks()) == analysis.main and len(analysis.main) == 4
    assert any("Seed noise:" in sentence for sentence in conclusions(analysis))


def test_arms_are_ranked_although_another_arm_failed(tmp_path: Path):
    scores = np.random.default_rng(0).normal(0.5, 0.001, (2, 8)) + np.array([[0.1], [0.0]])
    sweep_of(tmp_path, GRID[:2], scores)
    for seed in range(8):
        leave_run(tmp_path, {**GRID[2], "seed": seed}, None, "failed", "out of memory")
    analysis = analyze(tmp_path)
    ranks = {analysis.arms[arm].label: rank for arm, rank in analysis.ranks().items()}
    assert ranks == {"max + transposed": (1, 1), "max + bilinear": (2, 2)}
    assert len(analysis.missing_runs) == 8 and [c.seeds for c in analysis.family] == [8]
    assert "out of 1 comparison between 2 arms." in conclusions(analysis)[0]


def test_a_missing_metric_is_not_measured(tmp_path: Path):
    leave_run(tmp_path, {"model.down": "max", "seed": 0}, metrics_of(0.5, 0, test__boundary__iou=0.3))
    leave_run(tmp_path, {"model.down": "avg", "seed": 0}, metrics_of(0.5, 0))
    (missing,) = analyze(tmp_path, metric="boundary/iou").missing_runs
    assert missing.state == "not measured" and "without test/boundary/iou" in missing.reason


def test_a_reference_is_compared_with_every_other_arm(tmp_path: Path):
    sweep_of(tmp_path, GRID, np.random.default_rng(0).normal(0.5, 0.01, (4, 7)))
    assert len(analyze(tmp_path).family) == 6
    analysis = analyze(tmp_path, reference="max + transposed")
    others = [arm.label for arm in analysis.arms if arm.label != "max + transposed"]
    assert [pair.name for pair in analysis.contrasts] == [f"{other} vs max + transposed" for other in others]


def test_images_are_resampled_if_every_run_has_counts(tmp_path: Path):
    rng = np.random.default_rng(0)
    score = FROM_COUNTS["miou"]
    for arm, shift in zip(GRID[:2], (0, 0.05), strict=True):
        for seed in range(3):
            counts = counts_of(np.clip(0.6 + shift + rng.normal(0, 0.1, 30), 0.1, 0.9))
            leave_run(tmp_path, {**arm, "seed": seed}, metrics_of(float(score(counts.sum(0))), seed), counts=counts)
    analysis = analyze(tmp_path)
    assert analysis.images == 30 and not analysis.warnings
    assert analysis.scores.resampled is not None
    assert analysis.scores.resampled.mean(-1) == pytest.approx(analysis.scores.values)
    next(tmp_path.glob("*seed=2/confusions.npz")).unlink()
    analysis = analyze(tmp_path)
    assert analysis.images == 0 and "no confusions.npz" in analysis.warnings[0]


def test_metrics_of_counts_ignore_absent_classes():
    """Rows: truth. Class 2 is neither in truth nor in prediction."""
    counts = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert FROM_COUNTS["miou"](counts) == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert FROM_COUNTS["dice"](counts) == pytest.approx((6 / 7 + 8 / 9) / 2)
    assert FROM_COUNTS["class_accuracy"](counts) == pytest.approx((3 / 4 + 1) / 2)
    assert FROM_COUNTS["accuracy"](np.stack([counts, counts])) == pytest.approx([7 / 8, 7 / 8])


def test_different_commits_or_data_cause_a_warning(tmp_path: Path):
    for seed, (commit, data) in enumerate((("a" * 40, "sea"), ("b" * 40 + "+changes", "land"))):
        leave_run(tmp_path, {"seed": seed}, {**metrics_of(0.5, seed), "commit": commit, "data": data})
    warnings = " ".join(analyze(tmp_path).warnings)
    assert "2 commits (aaaaaaaaaa, bbbbbbbbbb)" in warnings and "uncommitted changes" in warnings
    assert "2 data sets (land, sea)" in warnings


def test_object_sizes_are_in_order():
    metrics = {"test/objects/traffic/sign/64-inf": 0.9, "test/objects/traffic/sign/0-64": 0.2,
               "test/objects_count/traffic/sign/0-64": 7}  # fmt: skip
    assert object_bins(metrics, "test") == {"traffic/sign": [(0.0, "0-64", 0.2, 7), (64.0, "64-inf", 0.9, None)]}


def make_arms(*settings: dict[str, str]) -> list[Arm]:
    return [Arm(arm_label(values), values, []) for values in settings]


def test_claims_compare_arms_that_agree_in_all_other_factors():
    arms = make_arms(*({key: str(value) for key, value in arm.items()} for arm in GRID))
    rows = compare_levels("model.down", ("strided",), ("max", "avg"))(arms)
    assert rows.tolist() == [[-1, 0, 1, 0], [0, -1, 0, 1]]
    assert len(compare_levels("model.down", ("strided",), ("avg",))(arms)) == 0
    crosswise = matched_vs_crossed({"max": ("bilinear",), "strided": ("transposed",)})(arms)
    assert crosswise.tolist() == [[-0.5, 0.5, 0.5, -0.5]]
    depths = make_arms({"model.depth": "3"}, {"model.depth": "10"}, {"model.depth": "5"})
    assert largest_vs_smallest("model.depth")(depths).tolist() == [[-1, 1, 0]]


def verdicts(folder: Path) -> dict[tuple[int, str], str]:
    return {(entry.claim.number, entry.claim.metric): entry.verdict for entry in evaluate_claims(analyze(folder))}


def sweep_for_claims(folder: Path, seeds: int, better: float) -> Path:
    rng = np.random.default_rng(0)
    for arm in ("max", "strided"):
        for seed in range(seeds):
            edge = 0.4 + better * (arm == "max") + rng.normal(0, 0.001)
            metrics = metrics_of(0.6 + rng.normal(0, 0.01), seed, test__boundary__iou=edge)
            metrics["model/parameters"] = 1000 + 500 * (arm == "strided")
            leave_run(folder, {"model.down": arm, "seed": seed}, metrics)
    return folder


def test_claims_are_contradicted_supported_or_not_decided(tmp_path: Path):
    """Pooling is claimed to lose position; here its boundaries are better by twenty standard deviations."""
    result = verdicts(sweep_for_claims(tmp_path / "many", 9, 0.02))
    assert result[1, "boundary/iou"] == "contradicted"
    assert result[1, "model/parameters"] == "supported"
    assert result[2, "miou"] == "not decided"
    assert result[9, "shift/agreement"] == "not measured"
    assert not any(number in (4, 7, 8) for number, _ in result)  # no such arms
    assert verdicts(sweep_for_claims(tmp_path / "other", 9, -0.02))[1, "boundary/iou"] == "supported"
    assert verdicts(sweep_for_claims(tmp_path / "few", 3, 0.02))[1, "boundary/iou"] == "not decided"
