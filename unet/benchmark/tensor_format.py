"""The dtype and memory format in which a network or an operator is run."""

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor

from unet.hardware import channels_last, native_bf16

DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class TensorFormat:
    """A dtype, where bf16 means autocast of fp32 weights, and a memory format."""

    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def __str__(self) -> str:
        return f"{DTYPES[self.dtype]} {'channels_last' if self.channels_last else 'contiguous'}"

    def to_memory_format(self, x: Tensor) -> Tensor:
        """Return x (B, C, *S) in this memory format, in its own dtype."""
        return channels_last(x) if self.channels_last else x.contiguous()

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        """Return the autocast context of the dtype."""
        plain = self.dtype == torch.float32
        return contextlib.nullcontext() if plain else torch.autocast(device.type, dtype=self.dtype)


PLAIN = TensorFormat()


def training_format(device: str) -> TensorFormat:
    """Return the format this project trains in: channels_last, and bf16 if the hardware supports it natively."""
    return TensorFormat(torch.bfloat16 if native_bf16(device) else torch.float32, channels_last=True)
