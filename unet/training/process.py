"""What a process carries from one run to the next: seeds, threads, precision, determinism, warnings."""

import logging
import random
import warnings

import numpy as np
import torch
from omegaconf import DictConfig

from unet.io.provenance import reset_peak_memory
from unet.training.config_limits import validate_config

DEFAULT_THREADS = torch.get_num_threads()
"""What torch chose for this machine."""


def setup_process(config: DictConfig) -> None:
    """Set everything a process carries from one run to the next: seeds, threads, precision, determinism.

    Raises:
        UserError: a value of the config that is none of what its key may hold.
    """
    validate_config(config)
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    reset_peak_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    torch.set_num_threads(config.threads or DEFAULT_THREADS)
    torch.use_deterministic_algorithms(False)
    # A debugging aid of deterministic mode that costs a pass over every new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("high" if torch.cuda.is_available() else "highest")  # TF32 where it exists
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # the summary says what its banner says
    for intended in (
        "does not have many workers",
        "smaller than the logging interval",
        "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # Lightning's own call
        "could not find the monitored key",  # a run too short to validate
        "Checkpoint directory .* exists and is not empty",  # a resumed run
        "your dataloader is not resumable",  # its sampler is told where to start
        "It is recommended to use `self.log\\(.*sync_dist",  # every process evaluates the whole split
        "Grad strides do not match bucket view strides",  # of one-channel weights laid out channels last
    ):
        warnings.filterwarnings("ignore", message=f".*{intended}")
