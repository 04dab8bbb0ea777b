"""Sweep folders without a training: runs whose numbers are known because they are made up here."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CLASSES = ("sky", "road", "pole")


def config_of(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A small resolved config with ``overrides`` in it, as a run would leave."""
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
        inner = config
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return config


def words_of(overrides: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value) if isinstance(value, list) else value}" for key, value in overrides.items()]


def leave_run(
    folder: Path,
    overrides: Mapping[str, Any],
    metrics: Mapping[str, Any] | None,
    state: str = "done",
    reason: str = "",
    counts: np.ndarray | None = None,
) -> Path:
    """One job's folder, named by its overrides; ``metrics`` None leaves none."""
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


def metrics_of(miou: float, seed: int, **others: Any) -> dict[str, Any]:
    """What a finished run leaves, with ``miou`` for a score; keys of ``others`` have ``__`` for ``/``."""
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
        **{key.replace("__", "/"): value for key, value in others.items()},
    }


def sweep_of(
    folder: Path,
    arms: Iterable[Mapping[str, Any]],
    scores: np.ndarray,
    first_seed: int = 0,
) -> Path:
    """Arms by seeds: ``scores`` (A, S) are their mIoU."""
    for arm, row in zip(arms, scores, strict=True):
        for seed, miou in enumerate(row, first_seed):
            leave_run(folder, {**arm, "seed": seed}, metrics_of(float(miou), seed))
    return folder


def counts_of(miou_of_image: np.ndarray, samples: int = 1000) -> np.ndarray:
    """(N, 2, 2) counts of two equally frequent classes, each of whose IoU is about that of its image."""
    wrong = np.round(samples * (1 - miou_of_image) / (1 + miou_of_image)).astype(np.int64)
    return np.stack([np.stack([samples - wrong, wrong], -1), np.stack([wrong, samples - wrong], -1)], -2)
