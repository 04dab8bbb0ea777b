"""The forms a network or an operator is run in: dtype and memory layout."""

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor

from unet.hardware import channels_last, native_bf16

DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Form:
    """The weights are always fp32; ``dtype`` bf16 means autocast."""

    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def __str__(self) -> str:
        return f"{DTYPES[self.dtype]} {'channels_last' if self.channels_last else 'contiguous'}"

    def lay(self, x: Tensor) -> Tensor:
        """x (B, C, *S) in this layout; its dtype stays."""
        return channels_last(x) if self.channels_last else x.contiguous()

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)


PLAIN = Form()


def trained_form(device: str) -> Form:
    """The project's own: channels_last, and bf16 where the hardware computes in it."""
    return Form(torch.bfloat16 if native_bf16(device) else torch.float32, channels_last=True)
