"""Sweep folders without a training: runs with known metrics."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CLASSES = ("sky", "road", "pole")


def config_of(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a small resolved config with ``overrides``, like that of a run."""
    config: dict[str, Any] = {
        "model": {"width": 8, "depth": 4, "down": "max", "up": "transposed", "skip": "concat"},
        "optim": {"lr": 0.001},
        "data": {"name": "made_up", "root": "somewhere", "source": {"_target_": "x.Y"}},
        "trainer": {"max_epochs": 3},
        "seed": 0,
        "ckpt_path": None,
    }
    for key, value in overrides.items():
        *parents, last = key.split(".")
        section = config
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return config


def words_of(overrides: Mapping[str, Any]) -> list[str]:
    """Return overrides as words of a command line."""
    return [f"{key}={json.dumps(value) if isinstance(value, list) else value}" for key, value in overrides.items()]


def leave_run(
    folder: Path,
    overrides: Mapping[str, Any],
    metrics: Mapping[str, Any] | None,
    state: str = "done",
    reason: str = "",
    counts: np.ndarray | None = None,
) -> Path:
    """Write one job's folder, named by its overrides; without metrics where they are None."""
    words = words_of(overrides)
    run = folder / ",".join(words)
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(config_of(overrides)))
    status = {"state": state, "reason": reason, "command": ["python", "train.py", *words]}
    (run / "status.json").write_text(json.dumps(status))
    if metrics is not None:
        (run / "metrics.json").write_text(json.dumps(metrics))
    if counts is not None:
        np.savez_compressed(run / "confusions.npz", names=[f"image{i}" for i in range(len(counts))], counts=counts)
    return run


def metrics_of(miou: float, seed: int, **extra: Any) -> dict[str, Any]:
    """Return the metrics of a finished run with the score ``miou``; ``extra`` keys have ``__`` for ``/``."""
    return {
        "test/miou": miou,
        **{f"test/iou/{name}": miou + step for name, step in zip(CLASSES, (0.1, 0, -0.1), strict=True)},
        "model/parameters": 1000,
        "model/flops": 2_000_000,
        "model/receptive_field": [140, 140],
        "time/train_seconds": 10.0 + seed,
        "time/samples_per_second": 50.0,
        "memory/peak_bytes": 2**28,
        "seed": seed,
        "data": "made_up",
        "commit": "a" * 40,
        "machine": "x86_64",
        "version/torch": "2.15.0",
        **{key.replace("__", "/"): value for key, value in extra.items()},
    }


def sweep_of(folder: Path, arms: Iterable[Mapping[str, Any]], scores: np.ndarray, first_seed: int = 0) -> Path:
    """Write the runs of arms and seeds; ``scores`` (A, S) are their mIoU."""
    for arm, values in zip(arms, scores, strict=True):
        for seed, miou in enumerate(values, first_seed):
            leave_run(folder, {**arm, "seed": seed}, metrics_of(float(miou), seed))
    return folder


def counts_of(miou_of_image: np.ndarray, samples: int = 1000) -> np.ndarray:
    """Return counts (N, 2, 2) of two equally frequent classes whose IoU is about that of their image."""
    errors = np.round(samples * (1 - miou_of_image) / (1 + miou_of_image)).astype(np.int64)
    return np.stack([np.stack([samples - errors, errors], -1), np.stack([errors, samples - errors], -1)], -2)
