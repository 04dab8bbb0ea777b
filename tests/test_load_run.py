"""Loading a finished run."""

import pytest
import torch
from conftest import script
from omegaconf import OmegaConf

from unet.errors import UserError
from unet.io.run_folder import CHECKPOINTS, load_run_config
from unet.training.train import train


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")
def test_a_run_is_loaded_with_its_best_weights(composed, tmp_path):
    config = composed("trainer.max_epochs=2", "model.down=strided")
    OmegaConf.save(config, tmp_path / "config.yaml", resolve=False)
    train(config, tmp_path)
    task, data = script("gallery").load_run(tmp_path)
    best = torch.load(tmp_path / CHECKPOINTS / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(best[name], value) for name, value in task.state_dict().items())
    assert not task.training and data.source.num_classes == 2
    image = script("gallery").features(tmp_path, count=2)
    assert image.width > 300 and image.height > 200


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.yaml: no such file; expected the folder of a finished run"):
        script("gallery").load_run(tmp_path)
    (tmp_path / "config.yaml").write_text("a: [1")
    with pytest.raises(UserError, match=r"config\.yaml: cannot be read"):
        load_run_config(tmp_path)
