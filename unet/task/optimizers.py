"""Optimizers by name: AdamW, SGD with momentum, and Muon for the kernels of convolutions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.conv import _ConvNd

from unet.hardware import native_bf16
from unet.network.model import UNet

POLYNOMIALS = ((8.0934, -23.6206, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9771, 0.4526))
"""Coefficients (a, b, c) of ``a x + b x^3 + c x^5``, applied in turn: of all such polynomials, each brings the singular
values that the one before leaves of 0.01 to 1 nearest to 1 (minimax, as in Amsel et al. 2025, The Polar Express,
https://arxiv.org/abs/2505.16932). After the last they are 0.73 to 1.27; five of Jordan's iterations do no better."""
RMS = 0.2
"""Root mean square of an update in units of the learning rate, about that of AdamW's updates (Liu et al. 2025)."""


class Muon(torch.optim.AdamW):
    """Gradient descent with momentum that orthogonalizes the update of every kernel; AdamW for all other parameters.

    The kernels are the parameters of the groups with ``"kernels": True``.

    The update of a kernel, as a matrix with one row per output channel, is replaced by the nearest matrix with
    orthonormal rows (or columns), so that all directions of the gradient are learned at the same rate. It is scaled to
    the size of AdamW's updates: both have one learning rate, one weight decay and one schedule.

    Sources: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the scale: Liu et al. 2025, Muon is scalable
    for LLM training, https://arxiv.org/abs/2502.16982.
    """

    def __init__(self, params: Iterable[dict[str, Any]], momentum: float = 0.95, **settings: Any):
        super().__init__(params, **settings)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:  # with all groups, of which it may clear the gradients
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group.get("kernels")]
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            if group.get("kernels"):
                for kernel in group["params"]:
                    if kernel.grad is not None:
                        self.update_kernel(kernel, kernel.grad, group["lr"], group["weight_decay"])
        return loss

    def update_kernel(self, kernel: Tensor, grad: Tensor, lr: float, weight_decay: float) -> None:
        """Update a kernel (Cout, Cin, *k), or (Cin, Cout, *k) of a transposed convolution."""
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None:  # skip the gradient, without waiting for the device
            grad = grad.where(found_inf == 0, 0)
        state = self.state[kernel]
        if not state:
            state["step"] = torch.zeros(())  # as AdamW has, which converts it when a checkpoint is loaded
            state["momentum"] = torch.zeros_like(kernel)
        state["step"] += 1
        state["momentum"].lerp_(grad, 1 - self.momentum)
        update = grad.lerp(state["momentum"], self.momentum)  # Nesterov's
        matrix = update.movedim(1, -1).flatten(1)  # in the order of channels-last memory
        direction = orthogonalize(matrix).unflatten(1, (*kernel.shape[2:], kernel.shape[1])).movedim(-1, 1)
        kernel.mul_(1 - lr * weight_decay)
        kernel.add_(direction, alpha=-lr * RMS * max(matrix.shape) ** 0.5)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return about the nearest matrix with orthonormal rows or columns, by :data:`POLYNOMIALS` of the singular values.

    In bfloat16 where that is fast: the result need not be more exact.
    """
    x = matrix.bfloat16() if native_bf16(matrix.device.type) else matrix.float()
    is_tall = len(x) > x.shape[1]
    x = x.T.contiguous() if is_tall else x
    x = x / x.norm().clamp(min=1e-7)
    for a, b, c in POLYNOMIALS:
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.T if is_tall else x
    return x.to(matrix.dtype)


def is_kernel(net: UNet, name: str) -> bool:
    """Return whether a parameter of a network is the kernel of a convolution that Muon trains.

    Not those of the heads, as is usual for output layers, and of grouped convolutions, whose groups are independent.
    """
    path, _, kind = name.rpartition(".")
    module = net.get_submodule(path)
    heads = [net.head, *net.coarse_heads]
    return kind == "weight" and isinstance(module, _ConvNd) and module.groups == 1 and module not in heads


class SGD(torch.optim.SGD):
    """Gradient descent with Nesterov momentum, which is the first of ``betas``."""

    def __init__(self, params: Iterable[dict[str, Any]], betas: Sequence[float], **settings: Any):
        super().__init__(params, momentum=betas[0], nesterov=betas[0] > 0, **settings)


OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "sgd": SGD, "muon": Muon}
"""Optimizers by name, the values of ``optim.name``; all take ``lr``, ``weight_decay``, ``betas`` and ``fused``."""
