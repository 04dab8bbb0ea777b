"""Every config composes and passes the checks of its values; trainer/default.yaml has all arguments of Lightning."""

import inspect
from pathlib import Path

import pytest
from conftest import ROOT, config
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.errors import ConfigCompositionException
from lightning import Trainer
from omegaconf import OmegaConf, open_dict

from unet import CONTEXT, DOWN, UP
from unet.data.module import SAMPLING
from unet.errors import UserError
from unet.io.run_folder import load_run_config
from unet.runs.error_messages import format_error
from unet.runs.run_names import identity_config, parse
from unet.training.build import build_data, check_network
from unet.training.config_limits import LIMITS, validate_config

CONFIGS = ROOT / "configs"


DATA_KEYS = {
    *("name", "class_weights", "source", "train_transforms", "eval_transforms", "_target_", "samples_per_epoch"),
    *("sampling", "batch_size", "eval_batch_size", "num_workers", "cache_gb", "eval_tile", "eval_overlap"),
}


@pytest.mark.parametrize("name", [path.stem for path in sorted((CONFIGS / "data").glob("*.yaml"))])
def test_every_data_set_has_the_same_keys_sets_nothing_else_and_passes_the_checks(name):
    composed, default = config(f"data={name}"), config()
    assert composed.data.name == name and set(composed.data) - {"root", "crop"} == DATA_KEYS
    assert {key for key in default if key not in ("data", "loss") and composed[key] != default[key]} == set()
    validate_config(composed)
    validate_config(config(f"data={name}", "model.stride=[[1,2,2],2,2]", "model.depth=3"))
    validate_config(config(f"data={name}", "model.stride=3", "model.down={name: max, kernel_size: 3}"))


@pytest.mark.parametrize("name", [path.stem for path in sorted((CONFIGS / "experiment").glob("*.yaml"))])
def test_every_experiment_composes_and_has_its_command(name):
    config(f"experiment={name}")
    lines = (CONFIGS / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert any(f"python train.py experiment={name}" in line for line in lines if line.startswith("#"))


def test_the_trainer_config_has_all_arguments_of_lightning():
    excluded = {"logger", "default_root_dir", "use_distributed_sampler", "enable_autolog_hparams"}
    assert set(config().trainer) == set(inspect.signature(Trainer.__init__).parameters) - {"self"} - excluded


def test_train_yaml_names_every_operator():
    page = (CONFIGS / "train.yaml").read_text()
    for key, table in (("down", DOWN), ("up", UP), ("context", CONTEXT)):
        (line,) = [line for line in page.splitlines() if line.startswith(f"  {key}: ")]
        assert [name for name in table if name not in line] == []


@pytest.mark.parametrize("path", sorted((CONFIGS / "sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_composes_and_has_its_command_and_number_of_runs(path: Path):
    comment = " ".join(line.lstrip("# ") for line in path.read_text().split("hydra:")[0].splitlines()[1:])
    assert f"python train.py -m sweep={path.stem}" in comment
    (jobs,) = BasicSweeper.split_arguments(parse([], OmegaConf.load(path).hydra.sweeper.params), None)
    assert f": {len(jobs)} runs" in comment
    for job in (jobs[0], jobs[-1]):
        config(*job)


def test_the_sweeps_down_and_up_have_every_operator():
    for key, table in (("down", DOWN), ("up", UP)):
        params = OmegaConf.load(CONFIGS / "sweep" / f"{key}.yaml").hydra.sweeper.params
        assert params[f"model.{key}"].split(",") == list(table)


def test_the_command_line_overrides_an_experiment():
    assert config("experiment=icbm152").model.norm == "none"
    assert config("experiment=icbm152", "model.norm=group").model.norm == "group"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.up=[nearest,linear,linear,bilinaer]", "did you mean bilinear"),
        ("model.context=sp", "did you mean spp"),
        ("model.act=rely", "did you mean relu"),
        ("model.spatial_dims=4", "model.spatial_dims: expected null or one of 1, 2, 3, found 4"),
        ("loss.class_weights=median", "did you mean median_frequency"),
        ("optim.schedule=onecycle", "did you mean one_cycle"),
        ("data.sampling=classbalanced", "did you mean class_balanced"),
        ("data.num_workers=many", "expected auto or an integer"),
        ("data.batch_size=0", "data.batch_size: expected an integer of at least 1, found 0"),
        ("data.eval_batch_size=1.5", "data.eval_batch_size: expected an integer"),
        ("data.samples_per_epoch=3", "expected at least one batch (8), found 3"),
    ],
)
def test_an_invalid_value_is_refused_before_data_are_read(override, message):
    chosen = config(override)
    with pytest.raises(UserError) as error:
        validate_config(chosen)
        check_network(chosen, build_data(chosen))
    assert message in str(error.value)


def test_the_values_of_sampling_are_those_of_the_data_module():
    assert LIMITS["data.sampling"].names == tuple(SAMPLING)


@pytest.mark.parametrize("value", [[], ["foreground", "classbalanced"], 3, [["uniform"]]])
def test_an_invalid_list_of_samplings_is_refused(value):
    chosen = config()
    chosen.data.sampling = value
    with pytest.raises(UserError, match=r"data.sampling: expected one of .*, or a list of them, one per epoch"):
        validate_config(chosen)


@pytest.mark.parametrize(("old", "new"), [("pictures", "num_logged_images"), ("data.draw", "data.sampling")])
def test_an_old_key_is_answered_with_the_new_one(old, new):
    with pytest.raises(ConfigCompositionException) as error:
        config(f"{old}=1")
    assert f"{old}: renamed; use {new} instead" in format_error(error.value)


def test_the_config_of_an_old_run_is_read_with_the_new_names(tmp_path):
    (tmp_path / "config.yaml").write_text("pictures: 2\nisolate: false\ndata: {draw: by_class}\n")
    renamed = {
        "num_logged_images": 2,
        "subprocess_per_job": False,
        "data": {"sampling": "class_balanced"},
        "prune": False,
    }
    assert load_run_config(tmp_path) == renamed


def test_a_run_from_before_windows_keeps_its_name():
    new = config("data=folder", "data.source.classes=[a,b]")
    old = new.copy()
    with open_dict(old):
        del old.data.source.window_size
    assert identity_config(old) == identity_config(new)
    new.data.source.window_size = 512
    assert identity_config(old) != identity_config(new)


def test_a_run_without_the_name_of_its_optimizer_had_adamw(tmp_path):
    (tmp_path / "config.yaml").write_text("optim: {lr: 0.001}\n")
    assert load_run_config(tmp_path) == {"optim": {"lr": 0.001, "name": "adamw"}, "prune": False}
