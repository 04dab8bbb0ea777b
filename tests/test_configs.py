"""Every config composes, every experiment too, and the trainer's page lists all of Lightning's arguments."""

import inspect

import pytest
from conftest import ROOT, script
from hydra import compose, initialize_config_dir
from lightning import Trainer

CONFIGS = ROOT / "configs"


def composed(*overrides: str):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", list(overrides))


@pytest.mark.parametrize("name", [path.stem for path in sorted((CONFIGS / "data").glob("*.yaml"))])
def test_every_data_set_composes_and_has_the_same_keys(name):
    data = composed(f"data={name}").data
    assert data.name == name
    common = {"name", "class_weights", "source", "train_transforms", "eval_transforms", "_target_"}
    common |= {
        "samples_per_epoch",
        "draw",
        "batch_size",
        "eval_batch_size",
        "num_workers",
        "cache_gb",
        "eval_tile",
        "eval_overlap",
    }
    assert common == set(data) - {"root"}


@pytest.mark.parametrize("name", [path.stem for path in sorted((CONFIGS / "experiment").glob("*.yaml"))])
def test_every_experiment_composes_and_opens_with_its_command(name):
    composed(f"experiment={name}")
    lines = (CONFIGS / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert any(f"python train.py experiment={name}" in line for line in lines if line.startswith("#"))


def test_all_arguments_of_the_trainer_pass_through():
    ours = {"logger", "callbacks", "default_root_dir", "use_distributed_sampler", "enable_autolog_hparams"}
    assert set(composed().trainer) == set(inspect.signature(Trainer.__init__).parameters) - {"self"} - ours


def test_every_operator_is_named_beside_its_key():
    from unet import CONTEXT, DOWN, UP

    page = (CONFIGS / "train.yaml").read_text()
    for key, table in (("down", DOWN), ("up", UP), ("context", CONTEXT)):
        (line,) = [line for line in page.splitlines() if line.startswith(f"  {key}: ")]
        assert [name for name in table if name not in line] == []


def test_the_readme_names_every_operator():
    from unet import CONTEXT, DOWN, UP

    readme = (ROOT / "README.md").read_text()
    assert [name for table in (DOWN, UP, CONTEXT) for name in table if f"`{name}`" not in readme] == []


def test_the_results_table_is_current():
    results = script("results")
    readme = (ROOT / "README.md").read_text()
    assert results.updated(readme) == readme, "run: python scripts/results.py table"


def test_a_data_set_may_bring_its_own_defaults_and_the_command_line_still_decides():
    assert (composed().model.norm, composed().model.depth) == ("batch", 4)
    volume = composed("data=icbm152")
    assert (volume.model.norm, volume.model.depth, volume.optim.lr) == ("none", 3, 2e-3)
    assert composed("data=icbm152", "model.norm=group").model.norm == "group"
