"""Analyze sweep folders: factors, paired runs, missing runs, and the verdicts of common claims."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sweeps import counts_of, leave_run, metrics_of, sweep_of, words_of

from unet.errors import UserError
from unet.report import analyze, write_report
from unet.report.arms import Arm, arm_label, find_factors, format_value, shorten_keys
from unet.report.common_claims import compare_levels, evaluate_claims, largest_vs_smallest, matched_vs_crossed
from unet.report.metrics import FROM_COUNTS, object_bins
from unet.report.read_sweep import read_sweep
from unet.report.summary_text import conclusions
from unet.report.tables import missing_run_table, variance_saved
from unet.report.untrained import found_limit

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


def test_a_key_that_a_command_derives_from_another_is_no_factor(tmp_path: Path):
    """Each up operator has its own rate: ``optim.lr="${rates.${model.up}}"``."""
    for up, lr in (("transposed", 0.02), ("bilinear", 0.01)):
        run = leave_run(tmp_path, {"model.up": up, "optim.lr": lr, "seed": 0}, metrics_of(0.5, 0))
        words = [
            f"model.up={up}",
            "+rates={transposed:0.02,bilinear:0.01}",
            'optim.lr="${rates.${model.up}}"',
            "seed=0",
        ]
        (run / "status.json").write_text(json.dumps({"state": "done", "command": ["python", "train.py", *words]}))
    analysis = analyze(tmp_path)
    assert analysis.factors == ["model.up"] and analysis.dependent_keys == {"optim.lr": "model.up"}
    assert {arm.label for arm in analysis.arms} == {"transposed", "bilinear"}


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
    assert shorten_keys(["loss.name", "optim.lr"]) == {"loss.name": "loss.name", "optim.lr": "lr"}
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
    assert not analysis.can_decide


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
    assert len(analysis.contrasts) == 6 and not analysis.missing_runs and len(analysis.main) == 4
    assert analysis.table is not None and analysis.table.seeds == 8
    assert [(q.key, {q.first, q.second}) for q in analysis.questions] == [
        ("model.down", {"max", "strided"}), ("model.up", {"transposed", "bilinear"})
    ]  # fmt: skip
    assert all(q.contrast.difference > 0 for q in analysis.questions)  # the better level first
    assert any("Seed noise:" in sentence for sentence in conclusions(analysis))


def test_arms_are_compared_although_another_arm_failed(tmp_path: Path):
    scores = np.random.default_rng(0).normal(0.5, 0.001, (2, 8)) + np.array([[0.1], [0.0]])
    sweep_of(tmp_path, GRID[:2], scores)
    for seed in range(8):
        leave_run(tmp_path, {**GRID[2], "seed": seed}, None, "failed", "out of memory")
    analysis = analyze(tmp_path)
    verdicts = {q.key: analysis.verdict(q) for q in analysis.questions}
    assert verdicts == {"model.up": "better", "model.down": "no seed in common"}
    assert len(analysis.missing_runs) == 8
    assert any("transposed is better than bilinear by 0.1" in sentence for sentence in conclusions(analysis))


def test_a_missing_metric_is_not_measured(tmp_path: Path):
    leave_run(tmp_path, {"model.down": "max", "seed": 0}, metrics_of(0.5, 0, test__boundary__iou=0.3))
    leave_run(tmp_path, {"model.down": "avg", "seed": 0}, metrics_of(0.5, 0))
    (missing,) = analyze(tmp_path, metric="boundary/iou").missing_runs
    assert missing.state == "not measured" and "without test/boundary/iou" in missing.reason


def test_named_questions_are_the_family(tmp_path: Path):
    """Of a grid of 2 x 2, the sweep asked for the up operators against bilinear only."""
    sweep_of(tmp_path, GRID, np.random.default_rng(0).normal(0.5, 0.01, (4, 7)))
    (tmp_path / "sweep.json").write_text(json.dumps({"questions": {"model.up": "bilinear", "model.depth": 4}}))
    (question,) = analyze(tmp_path).questions
    assert (question.key, question.first, question.second) == ("model.up", "transposed", "bilinear")
    assert sorted(question.weights.tolist()) == [-0.5, -0.5, 0.5, 0.5] and question.contrast.seeds == 7


def test_runs_below_the_baseline_are_in_no_mean(tmp_path: Path):
    """Seed 3 of the second arm has a score of 0.2, below the 0.4 of the colour histogram."""
    scores = 0.6 + np.random.default_rng(0).normal(0, 0.01, (2, 8))
    scores[1, 3] = 0.2
    for arm, row in zip(GRID[:2], scores, strict=True):
        for seed, score in enumerate(row):
            leave_run(tmp_path, {**arm, "seed": seed}, metrics_of(score, seed) | {"baseline/miou": 0.4})
    analysis = analyze(tmp_path)
    (run,) = analysis.untrained
    bilinear = [arm.label for arm in analysis.arms].index("bilinear")
    assert (run.arm, run.replicate, run.missed_class) == (bilinear, 3, None)
    assert analysis.scores.means()[bilinear] == pytest.approx(np.delete(scores[1], 3).mean())
    assert analysis.questions[0].contrast.seeds == 7
    assert "1 of 16 runs are below the histogram baseline: bilinear 1 of 8 (0 to 53 %)." in conclusions(analysis)[1]


def test_nothing_is_compared_if_no_run_trained(tmp_path: Path):
    for arm in GRID[:2]:
        for seed in range(2):
            leave_run(tmp_path, {**arm, "seed": seed}, metrics_of(0.3, seed) | {"baseline/miou": 0.4})
    analysis = analyze(tmp_path)
    texts = conclusions(analysis)
    assert texts[0].endswith("no run trained; the histogram baseline has mIoU 0.4000.")
    assert "Nothing is compared: no two of 2 arms share a seed at which both trained." in texts
    assert write_report(analysis).exists()


def class_scores(pole: float, seed: int) -> dict[str, Any]:
    return metrics_of(0.6, seed) | {"test/iou/pole": pole, "test/miou": (0.7 + 0.6 + pole) / 3}


def test_runs_that_missed_a_class_are_counted_and_excluded(tmp_path: Path):
    rng = np.random.default_rng(0)
    for arm, missing in (("max", [2]), ("avg", [5, 6])):
        for seed in range(10):
            pole = 0.001 if seed in missing else 0.5 + rng.normal(0, 0.02)
            leave_run(tmp_path, {"model.down": arm, "seed": seed}, class_scores(pole, seed))
    analysis = analyze(tmp_path)
    assert {(analysis.arms[run.arm].label, run.replicate) for run in analysis.untrained} == {
        ("max", 2), ("avg", 5), ("avg", 6)
    }  # fmt: skip
    assert analysis.questions[0].contrast.seeds == 7 and analysis.scores.means().min() > 0.58
    first = conclusions(analysis)[1]
    assert first.startswith("3 of 20 runs did not find pole: avg 2 of 10 (3 to 56 %), max 1 of 10 (0 to 45 %).")
    assert not analysis.missing_runs and [row[3] for row in missing_run_table(analysis).rows] == ["not trained"] * 3


def test_an_arm_that_never_finds_a_class_is_compared(tmp_path: Path):
    """Without skips no run finds poles; one of the other arm's does not either, which is excluded."""
    rng = np.random.default_rng(0)
    for arm, missing in (("concat", [2]), ("none", range(8))):
        for seed in range(8):
            pole = 0.001 if seed in missing else 0.5 + rng.normal(0, 0.02)
            leave_run(tmp_path, {"model.skip": arm, "seed": seed}, class_scores(pole, seed))
    analysis = analyze(tmp_path)
    (question,) = analysis.questions
    assert analysis.verdict(question) in ("better", "worse") and question.contrast.seeds == 7
    assert abs(question.contrast.difference) == pytest.approx(0.5 / 3, abs=0.01)
    texts = conclusions(analysis)
    assert texts[1].startswith("9 of 16 runs did not find pole: skip=none 8 of 8 (63 to 100 %), skip=concat 1 of 8")
    assert texts[2] == "None of the runs of skip=none found it: compared as they are."
    assert texts[3] == "1 run not trained: in no mean; all differences are between the others."


def test_no_verdict_if_many_runs_missed_a_class(tmp_path: Path):
    """Every other run finds poles: no mean over both kinds is compared, but another class can be."""
    for arm, better in (("max", 0.0), ("avg", 0.1)):
        for seed in range(8):
            metrics = class_scores(0.001 if seed % 2 else 0.5, seed) | {"test/iou/sky": 0.7 + better + seed / 1e4}
            leave_run(tmp_path, {"model.down": arm, "seed": seed}, metrics)
    analysis = analyze(tmp_path)
    assert [analysis.verdict(q) for q in analysis.questions] == ["no verdict"]
    assert "says little: no verdicts." in conclusions(analysis)[2]
    sky = analyze(tmp_path, metric="iou/sky")
    assert [sky.verdict(q) for q in sky.questions] == ["better"]


def test_scores_without_two_groups_exclude_no_run():
    rng = np.random.default_rng(0)
    assert found_limit(rng.uniform(0, 0.6, 40)) == -math.inf
    assert found_limit(rng.normal(0.3, 0.1, 40)) == -math.inf
    assert found_limit(np.full(5, 0.3)) == found_limit(np.array([0.2])) == -math.inf
    assert found_limit(np.array([0.001, 0.002, 0.02, 0.03])) == -math.inf  # a class that nobody finds
    assert found_limit(np.array([0.0, 0.02, 0.4, 0.5, 0.45])) == pytest.approx(0.21)


def test_images_widen_the_interval_for_other_images(tmp_path: Path):
    rng = np.random.default_rng(0)
    score = FROM_COUNTS["miou"]
    for arm, shift in zip(GRID[:2], (0, 0.05), strict=True):
        for seed in range(6):
            counts = counts_of(np.clip(0.6 + shift + rng.normal(0, 0.1, 30), 0.1, 0.9))
            leave_run(tmp_path, {**arm, "seed": seed}, metrics_of(float(score(counts.sum(0))), seed), counts=counts)
    analysis = analyze(tmp_path)
    contrast = analysis.questions[0].contrast
    assert analysis.units == 30 and not analysis.warnings
    assert contrast.wide_low < contrast.low < contrast.high < contrast.wide_high
    for path in tmp_path.glob("*/confusions.npz"):  # the same images as four clips
        with np.load(path) as arrays:
            names, counts = arrays["names"], arrays["counts"]
        np.savez_compressed(path, names=names, counts=counts, groups=[f"clip{i % 4}" for i in range(30)])
    analysis = analyze(tmp_path)
    assert analysis.units == 4 and math.isnan(analysis.questions[0].contrast.wide_low)
    assert any("4 independent units" in sentence for sentence in conclusions(analysis))
    next(tmp_path.glob("*seed=2/confusions.npz")).unlink()
    analysis = analyze(tmp_path)
    assert analysis.units == 0 and "no confusions.npz" in analysis.warnings[0]


def test_reports_before_all_seeds_use_a_part_of_the_error_rate(tmp_path: Path):
    """Twelve seeds are planned. Six use 0.0056 (O'Brien & Fleming), twelve then what is left of 0.05."""
    scores = np.random.default_rng(0).normal(0.5, 0.01, (2, 18))
    jobs = {}
    for arm in GRID[:2]:
        for seed in range(12):
            words = words_of({**arm, "seed": seed})
            jobs[",".join(words)] = words
    (tmp_path / "sweep.json").write_text(json.dumps({"commands": [], "jobs": jobs}))
    sweep_of(tmp_path, GRID[:2], scores[:, :6])
    early = analyze(tmp_path)
    assert early.look.alpha == pytest.approx(2 * norm.sf(norm.isf(0.025) * math.sqrt(2)))
    assert "Only 6 of 12 planned seeds are complete." in early.warnings[0]
    write_report(early)
    write_report(analyze(tmp_path))  # again with the same seeds: no further look
    sweep_of(tmp_path, GRID[:2], scores[:, 6:12], first_seed=6)
    late = analyze(tmp_path)
    assert late.look.alpha == pytest.approx(0.05 - early.look.alpha) and "1 earlier report" in late.warnings[0]
    assert late.questions[0].contrast.high - late.questions[0].contrast.low > 0
    write_report(late)
    sweep_of(tmp_path, GRID[:2], scores[:, 12:], first_seed=12)
    added = analyze(tmp_path)
    assert added.look.alpha == pytest.approx(0.05)
    assert "Seeds were added after a report on all 12 planned seeds." in added.warnings[0]


def test_a_complete_sweep_uses_the_whole_error_rate(tmp_path: Path):
    analysis = analyze(sweep_of(tmp_path, GRID, np.full((4, 6), 0.5)))
    assert analysis.look.alpha == 0.05 and not analysis.warnings


def test_runs_that_were_still_improving_cause_a_warning(tmp_path: Path):
    for seed in range(3):
        metrics = metrics_of(0.5, seed) | {"steps": 100, "best/step": 100 if seed else 50, "test/iou/pole": 0.0}
        leave_run(tmp_path, {"seed": seed}, metrics)
    warnings = analyze(tmp_path).warnings
    assert warnings[0].startswith("No run found pole") and "2 of 3 classes" in warnings[0]
    assert warnings[1].startswith("2 of 3 runs were best at their last validation")


def test_the_variance_that_pairing_saves(tmp_path: Path):
    """A seed that adds the same to both arms: all of it; to one arm alone: nothing; with opposite signs: it doubles."""
    seeds = np.array([0.01, -0.02, 0.03, 0.02, -0.04, 0.0])
    for name, effect, saved in (("all", seeds, 1), ("none", 0 * seeds, 0), ("opposite", -seeds, -1)):
        folder = sweep_of(tmp_path / name, GRID[:2], np.stack([0.5 + seeds, 0.5 + effect]))
        assert variance_saved(analyze(folder)) == pytest.approx(saved)


def test_the_margin_is_positive(tmp_path: Path):
    sweep_of(tmp_path, GRID[:1], np.array([[0.5]]))
    with pytest.raises(UserError, match="margin=0: expected a positive number"):
        analyze(tmp_path, margin=0)


@pytest.mark.parametrize("metric", ["shift/agreement", "calibration/ece", "model/flops", "loss"])
def test_a_metric_unlike_miou_needs_a_margin(tmp_path: Path, metric: str):
    key = metric if metric.startswith("model/") else f"test/{metric}"
    leave_run(tmp_path, {"model.down": "max", "seed": 0}, metrics_of(0.5, 0) | {key: 0.5})
    with pytest.raises(UserError, match=f"metric={metric}: .* such as margin=0.001"):
        analyze(tmp_path, metric=metric)
    assert analyze(tmp_path, metric=metric, margin=0.001).margin == 0.001
    assert analyze(tmp_path).margin == 0.01


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
