"""What every test shares: one thread, no network, the same random numbers every time."""

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("lab", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("lab")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same random numbers, alone or in company."""
    torch.manual_seed(0)
