"""From a sweep's folder to comparisons: what varied, which runs pair, what is missing, what the folklore is worth."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from sweeps import counts_of, leave_run, metrics_of, sweep_of, words_of

from unet.errors import UserError
from unet.report import analyze
from unet.report.arms import Arm, arm_label, find_factors, format_value, shorten_keys
from unet.report.claims import CLAIMS, compare_levels, evaluate_claims, largest_vs_smallest, matched_vs_crossed
from unet.report.conclusions import conclusions
from unet.report.metrics import FROM_COUNTS, object_bins
from unet.report.read_sweep import read_sweep

GRID = [{"model.down": down, "model.up": up} for down in ("max", "strided") for up in ("transposed", "bilinear")]


def test_a_sweep_is_read_as_it_stands(tmp_path: Path):
    sweep_of(tmp_path, GRID[:1], np.array([[0.5]]))
    (run,) = read_sweep(tmp_path).runs
    assert run.state == "done" and run.seed == 0 and run.setting("model.down") == "max"
    assert run.command == "python train.py model.down=max model.up=transposed seed=0"
    assert run.overrides == {"model.down": "max", "model.up": "transposed", "seed": 0}
    assert run.metrics["test/miou"] == 0.5


def test_an_older_run_has_its_command_at_the_head_of_its_config(tmp_path: Path):
    folder = leave_run(tmp_path, {"model.down": "max", "seed": 0}, metrics_of(0.5, 0))
    (folder / "status.json").write_text('{"state": "done", "reason": ""}')
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(f"# python train.py model.down=avg 'seed=3'\n{config}")
    (run,) = read_sweep(tmp_path).runs
    assert run.command == "python train.py model.down=avg seed=3" and run.overrides == {"model.down": "avg", "seed": 3}


def test_a_broken_run_is_one_row_and_not_the_end(tmp_path: Path):
    sweep_of(tmp_path, GRID[:2], np.array([[0.5, 0.6], [0.6, 0.7]]))
    broken = next(tmp_path.glob("*bilinear,seed=1"))
    (broken / "metrics.json").write_text('{"test/miou": 0.')
    found = analyze(tmp_path)
    (missing,) = found.missing_runs
    assert missing.state == "unreadable" and missing.name == broken.name and "broken" in missing.reason
    assert found.pairs[0][2].seeds == 1


RUNTIME = {"isolate": True, "retry_failed": False, "resume": "auto", "halve_batch": False, "diagnostics": True}


@pytest.mark.parametrize("key", RUNTIME)
def test_a_sweep_continued_with_another_runtime_key_keeps_its_arms(tmp_path: Path, key: str):
    """The value changes after the first arm: neither a factor of its own nor one that splits the other."""
    for number, (down, seed) in enumerate([("max", 0), ("strided", 0), ("max", 1), ("strided", 1)]):
        value = RUNTIME[key] if number else None
        leave_run(tmp_path, {"model.down": down, "seed": seed, key: value}, metrics_of(0.5, seed))
    found = analyze(tmp_path)
    assert found.factors == ["model.down"] and [len(arm.runs) for arm in found.arms] == [2, 2]


def test_arms_are_what_varied_but_not_seeds_nor_bookkeeping(tmp_path: Path):
    for seed in (0, 1):
        for width in (8, 16):
            extra = {"data.root": f"place{seed}{width}", "data.shuffle_seed": seed, "threads": width}
            leave_run(tmp_path, {"model.width": width, "seed": seed, **extra}, metrics_of(0.5, seed))
    found = analyze(tmp_path)
    assert found.factors == ["model.width"] and [arm.label for arm in found.arms] == ["width=8", "width=16"]
    assert [sorted(runs) for runs in found.runs] == [[0, 1], [0, 1]]


def test_what_moves_with_a_choice_is_no_factor_of_its_own(tmp_path: Path):
    for name, lr in (("sea", 0.1), ("land", 0.2)):
        run = leave_run(tmp_path, {"data.name": name, "optim.lr": lr, "seed": 0}, metrics_of(0.5, 0))
        status = {"state": "done", "command": ["python", "train.py", f"data={name}", "seed=0"]}
        (run / "status.json").write_text(json.dumps(status))
    keys, dependent_keys = find_factors(read_sweep(tmp_path).runs)
    assert keys == ["data.name"] and dependent_keys == {"optim.lr": "data.name"}


def test_two_keys_that_a_command_names_are_both_kept(tmp_path: Path):
    sweep_of(tmp_path, [GRID[0], GRID[3]], np.array([[0.5], [0.6]]))
    assert [arm.label for arm in analyze(tmp_path).arms] == ["max + transposed", "strided + bilinear"]


def test_every_arm_is_compared_at_the_value_that_validation_prefers(tmp_path: Path):
    """The test split prefers 0.1 for max, validation 0.01: validation is asked. ``strided`` has its best at 0.1."""
    validation = {("max", 0.01): 0.7, ("max", 0.1): 0.6, ("strided", 0.01): 0.4, ("strided", 0.1): 0.5}
    for (down, lr), score in validation.items():
        for seed in range(2):
            metrics = metrics_of(1 - score, seed) | {"best/val_miou": score + seed / 100}
            leave_run(tmp_path, {"model.down": down, "optim.lr": lr, "seed": seed}, metrics)
    leave_run(tmp_path, {"model.down": "max", "optim.lr": 0.5, "seed": 0}, None, "failed", "loss: nan")
    assert len(analyze(tmp_path).arms) == 5
    found = analyze(tmp_path, tune="optim.lr")
    assert [arm.label for arm in found.arms] == ["max", "strided"] and not found.missing_runs
    assert found.scores.values.tolist() == pytest.approx(np.array([[0.3, 0.3], [0.5, 0.5]]))
    assert found.tuning_notes[0].startswith(
        "max is compared at optim.lr=0.01 (mean validation mIoU by value: 0.01: 0.7050,"
    )


def test_tuning_needs_something_to_choose_by(tmp_path: Path):
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


def test_runs_pair_by_seed_and_failures_stay_out(tmp_path: Path):
    """Arm 0 has seeds 0 to 3, arm 1 lost seed 1 to an error and seed 2 to nan and never had seed 3."""
    first, second = GRID[0], GRID[1]
    sweep_of(tmp_path, [first], np.array([[0.5, 0.6, 0.7, 0.8]]))
    leave_run(tmp_path, {**second, "seed": 0}, metrics_of(0.52, 0))
    leave_run(tmp_path, {**second, "seed": 1}, None, "failed", "loss: nan at step 7")
    leave_run(tmp_path, {**second, "seed": 2}, metrics_of(math.nan, 2))
    found = analyze(tmp_path)
    ((_, _, pair),) = found.pairs
    assert pair.name == "bilinear vs transposed" and pair.differences == pytest.approx([0.02])
    assert {(missing.seed, missing.state) for missing in found.missing_runs} == {
        (1, "failed"),
        (2, "diverged"),
        (3, "missing"),
    }
    assert "loss: nan at step 7" in [missing.reason for missing in found.missing_runs]
    assert not found.can_decide and not found.ranks()


def test_a_plan_shows_what_never_started(tmp_path: Path):
    arms = [{**arm, "seed": seed} for arm in GRID for seed in (0, 1)]
    for overrides in arms[:-1]:
        leave_run(tmp_path, overrides, metrics_of(0.5, overrides["seed"]))
    jobs = {",".join(words_of(overrides)): words_of(overrides) for overrides in arms}
    (tmp_path / "sweep.json").write_text(json.dumps({"commands": ["python train.py -m ..."], "jobs": jobs}))
    found = analyze(tmp_path)
    (missing,) = found.missing_runs
    assert (missing.arm, missing.seed, missing.state) == ("strided + bilinear", 1, "missing")
    assert missing.command == "python train.py model.down=strided model.up=bilinear seed=1"
    assert found.sweep.commands == ["python train.py -m ..."]
    assert [run.name for run in found.sweep.runs] == list(jobs)


def test_equal_arms_with_other_seeds_are_the_noise_floor(tmp_path: Path):
    """A grid of two by two, and one of its cells again with other seeds, marked by ``arm``."""
    sweep_of(tmp_path, GRID, np.random.default_rng(1).normal(0.5, 0.01, (4, 8)))
    sweep_of(tmp_path, [{**GRID[0], "arm": "again"}], np.array([[0.51, 0.53, 0.55]]), first_seed=10)
    found = analyze(tmp_path)
    assert [arm.label for arm in found.arms if "again" in arm.label] == ["max + transposed (again)"]
    ((_, _, noise),) = found.repeats
    assert not noise.is_paired and noise.low < noise.difference < noise.high and noise.seeds == 0
    assert len(found.contrasts) == len(found.family) == 6 and not found.missing_runs
    assert found.effects is not None and found.effects.seeds == 8
    assert sorted(found.ranks()) == found.main and len(found.main) == 4
    assert any("Seed noise:" in sentence for sentence in conclusions(found))


def test_an_arm_that_failed_altogether_does_not_keep_the_others_from_their_ranks(tmp_path: Path):
    scores = np.random.default_rng(0).normal(0.5, 0.001, (2, 8)) + np.array([[0.1], [0.0]])
    sweep_of(tmp_path, GRID[:2], scores)
    for seed in range(8):
        leave_run(tmp_path, {**GRID[2], "seed": seed}, None, "failed", "out of memory")
    found = analyze(tmp_path)
    ranks = {found.arms[arm].label: rank for arm, rank in found.ranks().items()}
    assert ranks == {"max + transposed": (1, 1), "max + bilinear": (2, 2)}
    assert len(found.missing_runs) == 8 and [c.seeds for c in found.family] == [8]
    assert "out of 1 comparison between 2 arms." in conclusions(found)[0]


def test_a_metric_that_some_runs_lack_is_no_divergence(tmp_path: Path):
    leave_run(tmp_path, {"model.down": "max", "seed": 0}, metrics_of(0.5, 0, test__boundary__iou=0.3))
    leave_run(tmp_path, {"model.down": "avg", "seed": 0}, metrics_of(0.5, 0))
    (missing,) = analyze(tmp_path, metric="boundary/iou").missing_runs
    assert missing.state == "not measured" and "without test/boundary/iou" in missing.reason


def test_a_reference_needs_fewer_comparisons(tmp_path: Path):
    sweep_of(tmp_path, GRID, np.random.default_rng(0).normal(0.5, 0.01, (4, 7)))
    assert len(analyze(tmp_path).family) == 6
    found = analyze(tmp_path, reference="max + transposed")
    others = [arm.label for arm in found.arms if arm.label != "max + transposed"]
    assert [pair.name for pair in found.contrasts] == [f"{other} vs max + transposed" for other in others]


def test_images_are_resampled_where_every_run_has_counts(tmp_path: Path):
    rng = np.random.default_rng(0)
    score = FROM_COUNTS["miou"]
    for arm, shift in zip(GRID[:2], (0, 0.05), strict=True):
        for seed in range(3):
            counts = counts_of(np.clip(0.6 + shift + rng.normal(0, 0.1, 30), 0.1, 0.9))
            leave_run(tmp_path, {**arm, "seed": seed}, metrics_of(float(score(counts.sum(0))), seed), counts=counts)
    found = analyze(tmp_path)
    assert found.images == 30 and not found.warnings
    assert found.scores.resampled is not None
    assert found.scores.resampled.mean(-1) == pytest.approx(found.scores.values)
    next(tmp_path.glob("*seed=2/confusions.npz")).unlink()
    found = analyze(tmp_path)
    assert found.images == 0 and "no confusions.npz" in found.warnings[0]


def test_scores_of_counts_leave_out_absent_classes():
    """Rows: truth. Class 2 is neither in truth nor in prediction."""
    counts = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert FROM_COUNTS["miou"](counts) == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert FROM_COUNTS["dice"](counts) == pytest.approx((6 / 7 + 8 / 9) / 2)
    assert FROM_COUNTS["class_accuracy"](counts) == pytest.approx((3 / 4 + 1) / 2)
    assert FROM_COUNTS["accuracy"](np.stack([counts, counts])) == pytest.approx([7 / 8, 7 / 8])


def test_runs_of_different_commits_or_data_are_warned_of(tmp_path: Path):
    for seed, (commit, data) in enumerate((("a" * 40, "sea"), ("b" * 40 + "+changes", "land"))):
        leave_run(tmp_path, {"seed": seed}, {**metrics_of(0.5, seed), "commit": commit, "data": data})
    warnings = " ".join(analyze(tmp_path).warnings)
    assert "2 commits (aaaaaaaaaa, bbbbbbbbbb)" in warnings and "uncommitted changes" in warnings
    assert "2 data sets (land, sea)" in warnings


def test_validation_scores_are_called_so(tmp_path: Path):
    for seed in (0, 1):
        metrics = {key.replace("test/", "val/"): value for key, value in metrics_of(0.5, seed).items()}
        leave_run(tmp_path, {"model.depth": 3, "seed": seed}, metrics)
    assert analyze(tmp_path).split == "val"


def test_object_sizes_are_in_order_whatever_the_class_is_called():
    metrics = {"test/objects/traffic/sign/64-inf": 0.9, "test/objects/traffic/sign/0-64": 0.2,
               "test/objects_count/traffic/sign/0-64": 7}  # fmt: skip
    assert object_bins(metrics, "test") == {"traffic/sign": [(0.0, "0-64", 0.2, 7), (64.0, "64-inf", 0.9, None)]}


def arms_like(*settings: dict[str, str]) -> list[Arm]:
    return [Arm(arm_label(values), values, []) for values in settings]


def test_sayings_contrast_arms_that_are_alike_elsewhere():
    arms = arms_like(*({key: str(value) for key, value in arm.items()} for arm in GRID))
    rows = compare_levels("model.down", ("strided",), ("max", "avg"))(arms)
    assert rows.tolist() == [[-1, 0, 1, 0], [0, -1, 0, 1]]
    assert len(compare_levels("model.down", ("strided",), ("avg",))(arms)) == 0
    crosswise = matched_vs_crossed({"max": ("bilinear",), "strided": ("transposed",)})(arms)
    assert crosswise.tolist() == [[-0.5, 0.5, 0.5, -0.5]]
    depths = arms_like({"model.depth": "3"}, {"model.depth": "10"}, {"model.depth": "5"})
    assert largest_vs_smallest("model.depth")(depths).tolist() == [[-1, 1, 0]]


def verdicts(folder: Path) -> dict[tuple[int, str], str]:
    return {(entry.claim.number, entry.claim.metric): entry.verdict for entry in evaluate_claims(analyze(folder))}


def sweep_for_folklore(folder: Path, seeds: int, better: float) -> Path:
    rng = np.random.default_rng(0)
    for arm in ("max", "strided"):
        for seed in range(seeds):
            edge = 0.4 + better * (arm == "max") + rng.normal(0, 0.001)
            metrics = metrics_of(0.6 + rng.normal(0, 0.01), seed, test__boundary__iou=edge)
            metrics["model/parameters"] = 1000 + 500 * (arm == "strided")
            leave_run(folder, {"model.down": arm, "seed": seed}, metrics)
    return folder


def test_folklore_is_contradicted_supported_or_left_open(tmp_path: Path):
    """Pooling is told to lose position; here its boundaries are better by twenty spreads."""
    found = verdicts(sweep_for_folklore(tmp_path / "many", 9, 0.02))
    assert found[1, "boundary/iou"] == "contradicted"
    assert found[1, "model/parameters"] == "supported"
    assert found[2, "miou"] == "not decided"
    assert found[9, "shift/agreement"] == "not measured"
    assert not any(number in (4, 7, 8) for number, _ in found)  # no such arms
    assert verdicts(sweep_for_folklore(tmp_path / "other", 9, -0.02))[1, "boundary/iou"] == "supported"
    assert verdicts(sweep_for_folklore(tmp_path / "few", 3, 0.02))[1, "boundary/iou"] == "not decided"


def test_every_sentence_of_the_lore_has_an_entry():
    assert {claim.number for claim in CLAIMS} == set(range(1, 12))
