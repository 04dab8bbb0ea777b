"""Loading a finished run."""

import pytest
from conftest import script
from omegaconf import OmegaConf

from unet.errors import UserError
from unet.io.run_folder import load_run_config
from unet.training.train import train


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")
def test_the_feature_maps_of_a_run_are_drawn(composed, tmp_path):
    config = composed("trainer.max_epochs=2", "model.down=strided")
    OmegaConf.save(config, tmp_path / "config.yaml", resolve=False)
    train(config, tmp_path)
    image = script("gallery").features(tmp_path, count=2)
    assert image.width > 300 and image.height > 200


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.yaml: no such file; expected the folder of a finished run"):
        script("gallery").features(tmp_path)
    (tmp_path / "config.yaml").write_text("a: [1")
    with pytest.raises(UserError, match=r"config\.yaml: cannot be read"):
        load_run_config(tmp_path)
