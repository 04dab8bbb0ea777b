"""The forms a network or an operator is run in: dtype and memory layout."""

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unet.hardware import native_bf16

DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""torch's name of the layout for a tensor (B, C, *S) of that many axes; one spatial axis has none."""


@dataclass(frozen=True)
class Form:
    """The weights are always fp32; ``dtype`` bf16 means autocast."""

    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def __str__(self) -> str:
        return f"{DTYPES[self.dtype]} {'channels_last' if self.channels_last else 'contiguous'}"

    def lay(self, x: Tensor) -> Tensor:
        """x (B, C, *S) in this layout; its dtype stays."""
        if self.channels_last and x.ndim in CHANNELS_LAST:
            return x.contiguous(memory_format=CHANNELS_LAST[x.ndim])
        return x.contiguous()

    def lay_weights(self, module: nn.Module) -> nn.Module:
        """The module itself, its parameters and buffers in this layout."""
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = self.lay(tensor.data)
        return module

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)


PLAIN = Form()


def trained_form(device: str) -> Form:
    """The project's own: channels_last, and bf16 where the hardware computes in it."""
    return Form(torch.bfloat16 if native_bf16(device) else torch.float32, channels_last=True)
